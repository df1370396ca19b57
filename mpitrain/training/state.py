"""What a run is made of at a step, over all ranks: begun from a seed or a file, saved, taken up
again, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.exchange import Exchange
from mpitrain.exchange.residuals import Residuals
from mpitrain.job import checkpoint
from mpitrain.job.checkpoint import Entry, Newest, Reader
from mpitrain.job.config import Run, known
from mpitrain.job.errors import UserError
from mpitrain.job.weights import open_weights
from mpitrain.layers.layer import Shape, size
from mpitrain.mpi.wire import Wire
from mpitrain.network import models
from mpitrain.network.graph import Graph, parameters_of, statistics_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.network import Network
from mpitrain.network.parameters import Layout, Slot
from mpitrain.runtime.array import Array
from mpitrain.training.average import WeightAverage
from mpitrain.training.sgd import MomentumSgd
from mpitrain.training.slices import blocks, joined

PIECE = 1 << 22
"""Values of a vector that are brought to the host at once (16 MiB)."""
FEW = 2
"""Tensors in a sentence."""
Floats: TypeAlias = NDArray[np.float32]
Take: TypeAlias = Callable[[Floats, Sequence[Shape]], Sequence[Floats]]
"""take(mine, shapes): all ranks' parts of a block of rows, of these shapes. Collective."""
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


class State:
    """Weights, their average, momentum, statistics and residuals of all ranks. `alive` is called
    between pieces of long work."""

    def __init__(
        self,
        wire: Wire,
        graph: Graph,
        sgd: MomentumSgd | None,
        own: MomentumSgd | None,
        exchange: Exchange,
        alive: Callable[[], None],
        average: WeightAverage | None = None,
        alike: bool = False,
    ) -> None:
        """own: of the slices that this rank alone keeps; None where there are none.

        alike: steps leave the same statistics on all ranks.
        """
        self._wire, self._graph, self._sgd, self._own = wire, graph, sgd, own
        self._exchange, self._alive, self._average = exchange, alive, average
        self._alike = alike
        self._master = sgd.weights if sgd else graph.weights

    def begin(
        self,
        seed: int,
        drawn: Callable[[], Floats],
        init: str | None = None,
        partial: bool = False,
    ) -> str:
        """Take the weights that rank 0 has drawn from the seed, or those of a safetensors file, and
        give them to all. Returns what to say about the file.

        partial: take what fits of the file. Raises UserError for a file that does not fit.
        """
        graph = self._graph
        said, sliced = self._wire.agree.from_root(lambda: self._first(drawn, init, partial))
        self.spread(graph.weights, graph.statistics)
        if self._own:
            graph.own_weights.write(graph.own_layout.initial(seed))
            for name in sliced:
                self._hand_out(Path(str(init)), name, partial)
        if self._average:
            self._average.begin()
        return str(said)

    def _first(
        self, drawn: Callable[[], Floats], init: str | None, partial: bool
    ) -> tuple[str, list[str]]:
        """On rank 0: what to say, and of which tensors of the file every rank gets a slice."""
        graph = self._graph
        self._master.write(drawn())
        found = self._take(Path(init), partial) if init else ("", [])
        if self._master is not graph.weights:
            graph.weights.copy_from(self._master)
        return found

    def _take(self, path: Path, partial: bool) -> tuple[str, list[str]]:
        """Weights and statistics of a file under names and shapes that are here, too."""
        graph = self._graph
        shapes = {name: each.whole for name, each in graph.parameters.items()}
        shapes |= {name: slot.shape for name, slot in graph.statistics_layout.slots.items()}
        with open_weights(path) as reader:
            theirs, like = self._named(reader, partial)
            odd = [
                f"{name} is {reader.shape(theirs[name]) if name in theirs else 'not in it'}, "
                f"expected {shape}"
                for name, shape in shapes.items()
                if name not in theirs or reader.shape(theirs[name]) != shape
            ]
            more = [f"it has {name}" for name in theirs if name not in shapes]
            if ((odd or more) and not partial) or len(odd) == len(shapes):
                hint = "" if len(odd) == len(shapes) else "; --init-partial takes what fits"
                raise UserError(
                    f"--init {path}: not the tensors of {graph.network.name}: "
                    f"{_few([*odd, *more])}{hint}"
                )
            sliced = []
            for name, shape in shapes.items():
                if name in theirs and reader.shape(theirs[name]) == shape:
                    values = reader.read(theirs[name]).astype(np.float32)
                    if not np.isfinite(values).all():
                        raise UserError(f"--init {path}: {name} has values that are not finite")
                    if name in graph.own_layout.slots:
                        sliced.append(name)
                    else:
                        self._place_of(name).write(values)
        said = f"--init {path}: {len(shapes) - len(odd)} of {len(shapes)} tensors taken{like}"
        return (f"{said}; drawn anew: {_few(odd)}" if odd else said), sliced

    def _place_of(self, name: str) -> Array:
        """Where a tensor's exact values are that this rank shares with others."""
        graph = self._graph
        if name in graph.statistics_layout.slots:
            slot = graph.statistics_layout.slots[name]
            return graph.statistics.part(slot.start, slot.stop)
        slot = graph.layout.slots[name]
        return self._master.part(slot.start, slot.stop)

    def _named(self, reader: Any, partial: bool) -> tuple[Mapping[str, str], str]:
        """The names that a file's weights have here -> there, and what to say of them."""
        theirs = reader.weights()
        other = models.counterparts(self._graph.network.name, theirs) if partial else None
        if not other:
            return theirs, ""
        family, names = other
        found = {name: theirs[its] for name, its in names.items() if its in theirs}
        return found, f" as {family} has them, convolutions by their place in a stage"

    def _hand_out(self, path: Path, name: str, partial: bool) -> None:
        """Send every rank its slice of a tensor of a file that rank 0 can read. Collective."""
        graph, transfer = self._graph, self._wire.transfer
        placement = graph.parameters[name].placement
        assert placement is not None
        mine = np.empty(placement.shape, np.float32)
        if transfer.rank == 0:
            with open_weights(path) as reader:
                whole = reader.read(self._named(reader, partial)[0][name]).astype(np.float32)
            for rank, (start, stop) in enumerate(placement.shards):
                part = np.ascontiguousarray(whole.take(range(start, stop), placement.axis))
                if rank:
                    transfer.send(part, rank)
                else:
                    mine = part
        else:
            transfer.receive(mine, 0)
        graph.view(graph.own_weights, name).write(mine)

    def spread(self, *vectors: Array) -> None:
        """Rank 0's vectors to every rank, bit for bit; master weights of other ranks follow their
        weights."""
        first = self._wire.ranks.rank == 0
        for vector in vectors:
            if vector.size:
                with vector.host(write=not first, read=first) as host:
                    self._wire.transfer.broadcast(host)
        if self._master is not self._graph.weights and not first:
            self._master.copy_from(self._graph.weights)

    def average_statistics(self) -> None:
        """Running means and variances, which every rank measured on its own images, become their
        average on all ranks."""
        vectors = [self._graph.statistics, *([self._average.statistics] if self._average else [])]
        for vector in vectors if self._wire.ranks.size > 1 and not self._alike else []:
            if vector.size:
                mean = vector.download()
                self._wire.transfer.allreduce(mean)  # whole, or not at all where a rank dies
                vector.write(mean / np.float32(self._wire.ranks.size))

    def sha256(self) -> str:
        """Of this rank's parameters as little-endian float32 in network order; of tensors that are
        in slices with all ranks' slices, for which it is collective."""
        graph, digest = self._graph, hashlib.sha256()
        for name in graph.parameters:
            if name in graph.own_layout.slots:
                pieces = self._whole(graph.own_weights, name, self._from_all)
            else:
                slot = graph.layout.slots[name]
                pieces = self._pieces(graph.weights, slot.start, slot.stop)
            for piece in pieces:
                digest.update(piece.astype("<f4").tobytes())
        return digest.hexdigest()

    def is_finite(self) -> bool:
        """Whether the weights that this rank alone has are numbers, its slices and on rank 0 the
        master's: float32 carries a NaN to them unseen."""
        vectors = [self._graph.own_weights]
        if self._wire.ranks.rank == 0:
            vectors.append(self._master)
        return all(
            np.isfinite(piece).all()
            for vector in vectors
            for piece in self._pieces(vector, 0, vector.size)
        )

    def splits(self, tensors: Sequence[str] | None) -> bool:
        """Whether these are the tensors of which each rank keeps a slice."""
        return set(tensors or ()) == set(self._graph.own_layout.slots)

    # -- checkpoints
    # ----------------------------------------------------------------------------------------------

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Collective: rank 0 writes, the others send it their residuals when their turn is there.
        Raises RunError if the disk refuses."""
        entries = list(self._entries())
        if self._wire.ranks.rank == 0:
            checkpoint.write(path, entries, {"mpitrain": json.dumps(settings)})
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
        yield from self._parameters("", graph.weights, graph.own_weights)
        if rank == 0:
            for slot in graph.statistics_layout.slots.values():
                yield self._entry("", graph.statistics, slot)
        if self._sgd or self._own:
            velocity = self._sgd.velocity if self._sgd else graph.weights
            own = self._own.velocity if self._own else graph.own_weights
            yield from self._parameters("momentum/", velocity, own)
        for average, layout in self._averages() if rank == 0 else []:
            for slot in layout.slots.values():
                yield self._entry(checkpoint.AVERAGE, average, slot)
        if rank == 0 and self._master is not graph.weights:
            whole = partial(self._pieces, self._master, 0, self._master.size)
            yield Entry("state/master", self._master.shape, whole)
        for name, vector in self._exchange.residuals().items():
            facts = self._wire.agree.gather_facts([vector.size, self._exchange.coder_index])
            for owner, (count, number) in enumerate(facts):
                if count and rank in (0, owner):
                    mine, theirs = (
                        partial(self._pieces, vector, 0, count),
                        partial(self._received, count, owner),
                    )
                    pieces = mine if rank == owner else theirs
                    yield Entry(_residual(name, number), (count,), pieces)

    def _averages(self) -> list[tuple[Array, Layout]]:
        """The averages of weights and statistics, and where tensors lie in them."""
        graph, average = self._graph, self._average
        if not average:
            return []
        return [
            (average.weights, graph.layout),
            (average.statistics, graph.statistics_layout),
        ]

    def _parameters(self, prefix: str, shared: Array, own: Array) -> Iterator[Entry]:
        """In network order: shared tensors on rank 0, and those of which every rank has a slice."""
        graph, rank = self._graph, self._wire.ranks.rank
        for name, parameter in graph.parameters.items():
            if name in graph.own_layout.slots:
                take = self._at_root if rank == 0 else None
                yield Entry(prefix + name, parameter.whole, partial(self._whole, own, name, take))
            elif rank == 0:
                yield self._entry(prefix, shared, graph.layout.slots[name])

    def _entry(self, prefix: str, vector: Array, slot: Slot) -> Entry:
        pieces = partial(self._pieces, vector, slot.start, slot.stop)
        return Entry(prefix + slot.name, slot.shape, pieces)

    def _whole(self, vector: Array, name: str, take: Take | None) -> Iterator[NDArray[np.float32]]:
        """The rows of a tensor of which every rank has a slice in its vector, block by block.

        take: gets all ranks' parts of a block; None: yield this rank's part alone, to be sent.
        """
        slot, placement = self._graph.own_layout.slots[name], self._graph.parameters[name].placement
        assert placement is not None
        for block in blocks(placement):
            self._alive()
            start, shape = slot.start + block.start, block.shapes[placement.rank]
            mine = vector.part(start, start + size(shape)).download().reshape(shape)
            if take is not None:
                yield joined(take(mine, block.shapes), placement.axis)
            elif mine.size:
                yield mine

    def _from_all(self, mine: Floats, shapes: Sequence[Shape]) -> list[Floats]:
        """All ranks' parts of a block, on every rank."""
        activations = self._wire.activations
        parts = [np.empty(shape, np.float32) for shape in shapes]
        activations.swap([mine] * activations.size, parts)
        parts[activations.rank] = mine
        return parts

    def _at_root(self, mine: Floats, shapes: Sequence[Shape]) -> list[Floats]:
        """All ranks' parts of a block, on rank 0, to which the others send theirs."""
        parts = [mine]
        for source, shape in enumerate(shapes[1:], 1):
            parts.append(np.empty(shape, np.float32))
            if parts[-1].size:
                self._wire.transfer.receive(parts[-1], source)
        return parts

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
            if self._own:
                for vector, prefix in (
                    (graph.own_weights, ""),
                    (self._own.velocity, "momentum/"),
                ):
                    self._take_slices(reader, vector, prefix)
            for name, slot in graph.statistics_layout.slots.items():
                graph.statistics.part(slot.start, slot.stop).write(reader.read(name))
            if self._master is not graph.weights:
                # Where every rank updated its own weights, they were the master's.
                self._master.copy_from(graph.weights)
                if "state/master" in reader.names:
                    self._take_master(reader, settings.get("split") or [])
            self._resume_average(reader)
            if self._exchange.residuals():
                self._take_residuals(reader, settings, known(run.batch_size))
            return int(settings["step"])

    def _resume_average(self, reader: Reader) -> None:
        """A run that kept none before begins with the weights."""
        if self._average and not reader.averaged:
            self._average.begin()
            return
        for average, layout in self._averages():
            for name, slot in layout.slots.items():
                average.part(slot.start, slot.stop).write(reader.read(checkpoint.AVERAGE + name))
                self._alive()

    def _take_slices(self, reader: Reader, vector: Array, prefix: str) -> None:
        """This rank's slices of a checkpoint's whole tensors."""
        for name, parameter in self._graph.own_layout.parameters.items():
            placement = parameter.placement
            assert placement is not None
            start, stop = placement.shards[placement.rank]
            mine = reader.read(prefix + name, start, stop, placement.axis)
            self._graph.view(vector, name).write(np.ascontiguousarray(mine))
            self._alive()

    def _take_master(self, reader: Reader, sliced: Sequence[str]) -> None:
        """Rank 0's exact weights of then, a flat vector without the tensors that were `sliced`."""
        whole = {
            name: replace(each, shape=each.whole, placement=None)
            for name, each in self._graph.parameters.items()
            if name not in sliced
        }
        theirs = Layout(whole).slots
        for name, slot in self._graph.layout.slots.items():
            if name in theirs:
                then = theirs[name]
                values = reader.read("state/master", then.start, then.stop)
                self._master.part(slot.start, slot.stop).write(values)

    def _take_residuals(self, reader: Reader, settings: Mapping[str, Any], batch: int) -> None:
        """Share what the ranks of then have left out among those of now. An exact exchange has left
        nothing."""
        before = int(settings.get("coders") or settings["ranks"])
        if not self.splits(settings.get("split")):
            before = 0  # other values were exchanged, at other places
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


def check_resumable(found: Newest, network: Network, run: Run, images: int, identity: str) -> None:
    """Raise UserError unless a checkpoint is of this network and of these images in this order.
    Needs no device, so that refusals come before kernels.

    identity: of the training images; checkpoints of earlier versions have none.
    """
    settings = found.settings
    with Reader(found.path, verified=True) as reader:
        shapes = infer_shapes(network)
        wanted = parameters_of(network, shapes)
        if run.ema and reader.averaged:
            averaged = {**wanted, **statistics_of(network, shapes)}
            wanted |= {checkpoint.AVERAGE + name: each for name, each in averaged.items()}
        for name, parameter in wanted.items():
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
    if settings.get("identity") not in (None, identity):
        raise UserError(
            f"--resume {found.path}: the {images} training images in {run.data} are not those of "
            f"its run (which had {settings['run']['data']}); --init {found.path} begins a new run "
            "with its weights"
        )


def _few(words: Sequence[str]) -> str:
    """The first of many, and their number."""
    more = f", and {len(words) - FEW} more" if len(words) > FEW else ""
    return ", ".join(words[:FEW]) + more


def _residual(kind: str, number: int) -> str:
    """number: a rank's among those that code."""
    return f"state/residual/{kind}/{number}"
