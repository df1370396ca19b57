"""What a run is made of at a step, over all ranks: begun from a seed or a file, saved, taken up
again, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.exchange import Exchange
from mpitrain.exchange.residuals import Residuals
from mpitrain.job import checkpoint
from mpitrain.job.checkpoint import Entry, Newest, Reader
from mpitrain.job.config import Run, known
from mpitrain.job.errors import UserError
from mpitrain.mpi.wire import Wire
from mpitrain.network.graph import Graph, parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.network import Network
from mpitrain.runtime.array import Array
from mpitrain.training.sgd import MomentumSgd

PIECE = 1 << 22
"""Values of a vector that are brought to the host at once (16 MiB)."""
FEW = 2
"""Tensors in a sentence."""
DECIDES = {
    "batch_size": None,
    "seed": None,
    "augment": None,
    "no_dropout": None,
    "resize": None,
    "label_smoothing": 0.0,
    "mixup": 0.0,
}
"""Settings that a step's values depend on, and what a checkpoint means that lacks one."""
Pieces = Callable[[], Iterator[NDArray[np.float32]]]


class State:
    """Weights, momentum, statistics and residuals of all ranks. `alive` is called between pieces of
    long work."""

    def __init__(
        self,
        wire: Wire,
        graph: Graph,
        sgd: MomentumSgd | None,
        exchange: Exchange,
        alive: Callable[[], None],
    ) -> None:
        self._wire, self._graph, self._sgd, self._exchange, self._alive = (
            wire,
            graph,
            sgd,
            exchange,
            alive,
        )
        self._master = sgd.weights if sgd else graph.weights

    def begin(self, seed: int, init: str | None, partial: bool = False) -> str:
        """Draw the weights on rank 0, or take them from a safetensors file, and give them to all.
        Returns what to say about the file.

        partial: take what fits of the file. Raises UserError for a file that does not fit.
        """
        said: str = self._wire.agree.from_root(lambda: self._draw(seed, init, partial))
        self.spread(self._graph.weights, self._graph.statistics)
        return said

    def _draw(self, seed: int, init: str | None, partial: bool) -> str:
        graph = self._graph
        self._master.write(graph.layout.initial(seed))
        said = self._take(Path(init), partial) if init else ""
        if self._master is not graph.weights:
            graph.weights.copy_from(self._master)
        return said

    def _take(self, path: Path, partial: bool) -> str:
        """Weights and statistics of a file under names and shapes that are here, too."""
        graph = self._graph
        slots = {
            name: (vector, slot)
            for vector, layout in (
                (self._master, graph.layout),
                (graph.statistics, graph.statistics_layout),
            )
            for name, slot in layout.slots.items()
        }
        with Reader(path) as reader:
            theirs = reader.weights()
            odd = [
                f"{name} is {reader.shape(theirs[name]) if name in theirs else 'not in it'}, "
                f"expected {slot.shape}"
                for name, (_, slot) in slots.items()
                if name not in theirs or reader.shape(theirs[name]) != slot.shape
            ]
            more = [f"it has {name}" for name in theirs if name not in slots]
            if ((odd or more) and not partial) or len(odd) == len(slots):
                hint = "" if len(odd) == len(slots) else "; --init-partial takes what fits"
                raise UserError(
                    f"--init {path}: not the tensors of {graph.network.name}: "
                    f"{_few([*odd, *more])}{hint}"
                )
            for name, (vector, slot) in slots.items():
                if name in theirs and reader.shape(theirs[name]) == slot.shape:
                    values = reader.read(theirs[name]).astype(np.float32)
                    if not np.isfinite(values).all():
                        raise UserError(f"--init {path}: {name} has values that are not finite")
                    vector.part(slot.start, slot.stop).write(values)
        said = f"--init {path}: {len(slots) - len(odd)} of {len(slots)} tensors taken"
        return f"{said}; drawn anew: {_few(odd)}" if odd else said

    def spread(self, *vectors: Array) -> None:
        """Rank 0's vectors to every rank, bit for bit; master weights of other ranks follow their
        weights."""
        for vector in vectors:
            if vector.size:
                with vector.host(write=self._wire.ranks.rank > 0) as host:
                    self._wire.transfer.broadcast(host)
        if self._master is not self._graph.weights and self._wire.ranks.rank > 0:
            self._master.copy_from(self._graph.weights)

    def average_statistics(self) -> None:
        """Running means and variances, which every rank measured on its own images, become their
        average on all ranks."""
        if self._graph.statistics.size and self._wire.ranks.size > 1:
            mean = self._graph.statistics.download()
            self._wire.transfer.allreduce(mean)  # whole, or not at all where a rank dies meanwhile
            self._graph.statistics.write(mean / np.float32(self._wire.ranks.size))

    def sha256(self) -> str:
        """Of this rank's parameters as little-endian float32 in network order."""
        digest = hashlib.sha256()
        for slot in self._graph.layout.slots.values():
            for piece in self._pieces(self._graph.weights, slot.start, slot.stop):
                digest.update(piece.astype("<f4").tobytes())
        return digest.hexdigest()

    def is_finite(self) -> bool:
        """Whether this rank's weights, or the master's on rank 0, are numbers: float32 carries a
        NaN to them unseen."""
        vector = self._master
        return all(np.isfinite(piece).all() for piece in self._pieces(vector, 0, vector.size))

    # -- checkpoints
    # ----------------------------------------------------------------------------------------------

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Collective: rank 0 writes, the others send it their residuals when their turn is there.
        Raises RunError if the disk refuses."""
        entries = list(self._entries())
        if self._wire.ranks.rank == 0:
            checkpoint.write(path, entries, {"mpitrain": json.dumps(settings)})
            checkpoint.prune(path.parent)
            return
        for entry in entries:
            for piece in entry.pieces():
                self._wire.transfer.send(piece, 0)

    def size_of_checkpoint(self) -> int:
        """Bytes of what `save` writes. Collective; right on rank 0."""
        return sum(entry.nbytes for entry in self._entries())

    def _entries(self) -> Iterator[Entry]:
        """On rank 0 every tensor of a checkpoint; on the others those that they must send."""
        graph, rank = self._graph, self._wire.ranks.rank
        if rank == 0:
            yield from self._tensors("", graph.weights, graph.layout.slots.values())
            yield from self._tensors("", graph.statistics, graph.statistics_layout.slots.values())
            if self._sgd:
                yield from self._tensors(
                    "momentum/", self._sgd.velocity, graph.layout.slots.values()
                )
            if self._master is not graph.weights:
                whole = partial(self._pieces, self._master, 0, self._master.size)
                yield Entry("state/master", self._master.shape, whole)
        for name, vector in self._exchange.residuals().items():
            facts = self._wire.agree.gather_facts([vector.size, self._exchange.coder_index])
            for owner, (size, number) in enumerate(facts):
                if size and rank in (0, owner):
                    mine, theirs = (
                        partial(self._pieces, vector, 0, size),
                        partial(self._received, size, owner),
                    )
                    yield Entry(_residual(name, number), (size,), mine if rank == owner else theirs)

    def _tensors(self, prefix: str, vector: Array, slots: Sequence[Any] | Any) -> Iterator[Entry]:
        for slot in slots:
            yield Entry(
                prefix + slot.name, slot.shape, partial(self._pieces, vector, slot.start, slot.stop)
            )

    def _pieces(self, vector: Array, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """A range of a device vector in host arrays of bearable size."""
        for at in range(start, stop, PIECE):
            self._alive()
            yield vector.part(at, min(at + PIECE, stop)).download()

    def _received(self, size: int, source: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, size, PIECE):
            self._alive()
            piece = np.empty(min(PIECE, size - start), np.float32)
            self._wire.transfer.receive(piece, source)
            yield piece

    def resume(self, path: Path, run: Run) -> int:
        """Take up a checkpoint that is whole and passed `check_resumable`: every rank reads what is
        its own. Returns the steps done."""
        with Reader(path, verified=True) as reader:
            settings = reader.settings()
            graph = self._graph
            for name, slot in graph.layout.slots.items():
                graph.weights.part(slot.start, slot.stop).write(reader.read(name))
                if self._sgd:
                    self._sgd.velocity.part(slot.start, slot.stop).write(
                        reader.read(f"momentum/{name}")
                    )
                self._alive()
            for name, slot in graph.statistics_layout.slots.items():
                graph.statistics.part(slot.start, slot.stop).write(reader.read(name))
            if self._master is not graph.weights:
                if "state/master" in reader.names:
                    self._master.write(reader.read("state/master"))
                else:  # every rank updated its own weights: they were the master's
                    self._master.copy_from(graph.weights)
            if self._exchange.residuals():
                self._take_residuals(reader, settings, known(run.batch_size))
            return int(settings["step"])

    def _take_residuals(self, reader: Reader, settings: Mapping[str, Any], batch: int) -> None:
        """Share what the ranks of then have left out among those of now. An exact exchange has left
        nothing."""
        before = int(settings.get("coders") or settings["ranks"])
        mine = self._exchange.residuals()
        kind = self._exchange.left_out
        sizes = {name: vector.size for name, vector in mine.items()}
        if kind == "sender":
            coded = [bucket.stop - bucket.start for bucket in self._graph.buckets if bucket.coded]
            sizes[kind] = sum(coded)
        senders, owners = (
            [_residual(each, rank) in reader.names for rank in range(before)]
            for each in (kind, "owner")
        )
        for rank in range(before if any(senders) else 0):
            found = reader.shape(_residual(kind, rank)) if senders[rank] else "missing"
            if found != (sizes[kind],):
                raise UserError(
                    f"--resume {reader.path}: {_residual(kind, rank)} is {found}, expected "
                    f"{(sizes[kind],)}"
                )

        def read(name: str, rank: int, start: int, stop: int) -> NDArray[np.float32]:
            self._alive()
            whole = reader.shape(_residual(name, rank))
            if name not in (kind, "owner") and whole != (sizes[name],):
                return np.zeros(0, np.float32)
            values: NDArray[np.float32] = reader.read(_residual(name, rank), start, stop)
            return values

        left = Residuals(
            read, self._graph.buckets, before if any(senders) else 0, any(owners), batch
        )
        self._exchange.restore(left, int(settings["step"]))


def check_resumable(found: Newest, network: Network, run: Run, images: int) -> None:
    """Raise UserError unless a checkpoint is of this network and this order of images. Needs no
    device, so that refusals come before kernels."""
    settings = found.settings
    with Reader(found.path, verified=True) as reader:
        for name, parameter in parameters_of(network, infer_shapes(network)).items():
            if name not in reader.names:
                raise UserError(
                    f"--resume {found.path}: a checkpoint of {settings['name']}, it has no {name} "
                    f"of {network.name}"
                )
            if reader.shape(name) != parameter.shape:
                raise UserError(
                    f"--resume {found.path}: {name} is {reader.shape(name)} there, {network.name} "
                    f"needs {parameter.shape}"
                )
    pairs = [
        (name, settings["run"].get(name, default), getattr(run, name))
        for name, default in DECIDES.items()
    ]
    for name, was, now in [*pairs, ("training images", settings["images"], images)]:
        if was != now:
            raise UserError(
                f"--resume {found.path}: its run had {name} {was}, this one has {now}; what a step "
                "computes depends on it"
            )


def _few(words: Sequence[str]) -> str:
    """The first of many, and their number."""
    more = f", and {len(words) - FEW} more" if len(words) > FEW else ""
    return ", ".join(words[:FEW]) + more


def _residual(kind: str, number: int) -> str:
    """number: a rank's among those that code."""
    return f"state/residual/{kind}/{number}"
