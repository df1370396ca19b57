"""Turn every rank's sums of gradients into new weights on every rank, bucket by bucket."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.clip import Clip
from mpitrain.exchange.codec import make_scale
from mpitrain.exchange.home import Home
from mpitrain.exchange.in_place import InPlace
from mpitrain.exchange.move import Move
from mpitrain.exchange.plain import Float32
from mpitrain.exchange.registry import check_update, find, is_lossy
from mpitrain.exchange.residuals import Residuals
from mpitrain.exchange.strategy import Parts, Sampled, Strategy, Turn
from mpitrain.exchange.stream import BESIDE_GPU, COMPUTING, Stream
from mpitrain.mpi.hops import Hops, Pending, complete
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


@dataclass(frozen=True)
class ExchangeReport:
    """What the exchange of one step did, as this rank saw it."""

    bytes_sent: int
    error_bound: float
    """The largest error that coding can have made in a value of the mean: infinity if a gradient
    was not finite, 0 if nothing is coded and on ranks that do not get the mean."""
    finite: bool
    """Whether every coded block was finite, the same on every rank. float32 keeps NaN as it is."""
    seconds: float
    """While at least one complete bucket had not yet become new weights."""
    hidden: float
    """How many of these seconds passed during the backward pass."""
    gradient_norm: float | None = None
    """Of the mean before it was clipped, on ranks that get it; None if it is not to be clipped."""


class Updater(Protocol):
    """What an exchange needs of the training above it. With streaming a thread calls it."""

    def set_out(self, gradient: Array) -> None:
        """The exchange of a bucket of the whole flat gradient (n,) begins. It may change that, but
        leaves nothing queued that does."""

    def update(self, move: Move) -> None:
        """Move a range of weights by its mean gradient.

        These are rank 0's master weights (update "root") or every rank's weights ("replicated").
        The work is done when this returns, or queued on `device.beside()` (one rank: on `device`).
        """

    def alive(self) -> None:
        """The exchange makes progress; called at each hop, for a watchdog."""


class Exchange:
    """`send` each bucket as soon as it is complete; after `finish` every rank has new weights.

    update "root": rank 0 gets the mean and applies it to its master weights, which every rank's
    weights follow. "replicated": every rank gets the same mean and applies it to its own weights.
    All ranks send the same buckets in the same order. With `streaming` a thread exchanges several
    buckets at once, on a second queue of the device; `finish` raises the errors of that thread.
    With `clip_norm` weights move only when all buckets are averaged, for the norm is of them all.
    """

    def __init__(
        self,
        wire: Wire,
        device: Device,
        weights: Array,
        gradient: Array,
        buckets: Sequence[Bucket],
        kind: str,
        update: str,
        updater: Updater,
        master: Array | None = None,
        streaming: bool = True,
        home: Home | None = None,
        clip_norm: float | None = None,
    ) -> None:
        """Collective. Raises UserError for an unknown kind or update.

        weights, gradient: float32 (n,). Gradients are sums over images; `send` overwrites them.
        master: if `needs_master`, rank 0's exact float32 weights, equal to `weights` at the start;
        otherwise None or `weights` itself.
        home: for kind "window", where weights and gradient lie, if the host's ranks share it.
        clip_norm: the largest norm of the whole mean.
        """
        strategy = find(kind)
        check_update(kind, update)
        several = wire.ranks.size > 1
        self._wire, self._main, self._updater = wire, device, updater
        self._device = device = device.beside() if several else device
        self._gradient, self._buckets = gradient.on(device), buckets
        self._gradients = {
            bucket.number: self._gradient.part(bucket.start, bucket.stop) for bucket in buckets
        }
        parts = Parts(
            wire,
            device,
            weights.on(device),
            master.on(device) if master is not None and master is not weights else None,
            self._gradients,
            buckets,
            update == "replicated",
            make_scale(device),
            kind.partition(":")[2],
            apart=clip_norm is not None,
        )
        self._strategy: Strategy
        if home:
            self._strategy = InPlace(parts, home)
        else:
            self._strategy = (strategy if several or strategy.alone else Float32)(parts)
        self._clips = clip_norm is not None
        self._clip: Clip | None = None
        to_all = update == "replicated"
        if clip_norm is not None and (to_all or wire.ranks.rank == 0):
            everyone = wire.agree if to_all and several else None
            self._clip = Clip(device, clip_norm, self._gradient, everyone)
        self._sent: list[tuple[Bucket, int, Turn]] = []
        device.finish()
        self._stream: Stream | None = None
        if streaming and several and wire.ranks.threads:
            computing = COMPUTING if device.shares_memory else BESIDE_GPU
            self._stream = Stream(device.finish, updater.alive, computing)
        self._step = self._under_way = self._landed = 0
        self._busy_since = 0.0
        self._clear()

    @property
    def coders(self) -> Wire | None:
        """The wire between the ranks that code; None on other ranks, and if nothing is coded."""
        return self._strategy.coders

    @property
    def shares_owned(self) -> bool:
        """Whether each rank that codes owns a shard of each coded bucket; otherwise none does."""
        return self._strategy.shares_owned

    @property
    def left_out(self) -> str:
        """The name in `residuals` of what this rank has not sent yet; empty if there is none."""
        return self._strategy.left_out

    @property
    def codes(self) -> bool:
        """Whether any rank codes anything."""
        return self._strategy.codes

    @property
    def coder_index(self) -> int:
        """This rank's index among the ranks that code; -1 if it does not."""
        return self._strategy.coder_index

    @property
    def coder_count(self) -> int:
        """How many ranks code."""
        return self._strategy.coder_count

    def __str__(self) -> str:
        return str(self._strategy)

    def _clear(self) -> None:
        self._bound, self._finite, self._seconds = 0.0, True, 0.0
        self._sent_bytes_before = self._wire.bytes_sent

    def sample(self, number: int) -> None:
        """In the next step, sample the coded bucket with this index, modulo their number."""
        self._strategy.sample(number)

    def sampled(self) -> Sampled | None:
        """After `finish`: residuals of the sampled bucket; None if this rank does not code."""
        return self._strategy.sampled()

    def add(self) -> None:
        """Take in a piece of every bucket's gradient, which is complete when the work queued on the
        device is done; `send` follows for the last piece of a step."""
        self._main.finish()
        for bucket in self._buckets:
            self._strategy.add(bucket)
        self._device.finish()

    def send(self, bucket: Bucket, images: int) -> None:
        """Start a bucket, which is complete when the work queued on the device so far is done.

        images: in the step's whole batch.
        """
        ready = self._main.mark() if self._wire.ranks.size > 1 else None
        turn = Turn(self._step, len(self._sent))
        self._sent.append((bucket, images, turn))
        self._start(self._hops(bucket, images, ready, turn))

    def _start(self, hops: Hops[None]) -> None:
        if self._stream is not None:
            self._stream.send(hops)
        else:
            complete(hops)

    def finish(self, goes_on: bool = False) -> ExchangeReport:
        """Wait until every rank holds the new weights: the end of a step.

        goes_on: what comes after it has been queued already, which only one rank alone may do
        (`queues_all`); then it does not wait for that.

        Raises RunError that names the sender if a message was not what was expected.
        """
        if not goes_on:
            self._main.finish()
        began = time.perf_counter()
        norm = self._move_clipped() if self._clips else None
        if not goes_on:
            self._wait()
        waited = time.perf_counter() - began
        report = ExchangeReport(
            bytes_sent=self._wire.bytes_sent - self._sent_bytes_before,
            error_bound=self._bound,
            finite=self._finite,
            seconds=self._seconds,
            hidden=max(0.0, self._seconds - waited) if self._stream is not None else 0.0,
            gradient_norm=norm,
        )
        self._step += 1
        self._sent.clear()
        self._landed = 0
        self._clear()
        return report

    def _move_clipped(self) -> float | None:
        """When all buckets are averaged: clip the mean, and start moving the weights by it. Returns
        the mean's norm on ranks that have it."""
        self._wait()
        norm = self._clip() if self._clip else None
        self._finite = self._finite and (norm is None or math.isfinite(norm))
        for sent in self._sent:
            self._start(self._counted(self._move(*sent)))
        return norm

    def _wait(self) -> None:
        """Until all buckets that were started have reached their end."""
        if self._stream is not None:
            self._stream.finish()
        self._device.finish()

    @property
    def queues_all(self) -> bool:
        """Whether new weights are queued on the graph's own queue when `send` returns: whatever is
        queued then has them, and nobody needs to wait."""
        return self._device is self._main and not self._clips

    @property
    def streams(self) -> bool:
        """Whether a thread exchanges buckets."""
        return self._stream is not None

    def busy(self) -> bool:
        """Whether any bucket of this step is on its way."""
        return len(self._sent) > self._landed

    def close(self) -> None:
        """End the thread, and give back what strategies hold of memory that ranks share; nothing
        may be sent afterwards."""
        if self._stream is not None:
            self._stream.close()
        self._strategy.close()

    def residuals(self) -> dict[str, Array]:
        """What coding has left out so far on this rank; empty if nothing is coded.

        "sender": of its sums, all coded buckets in the order of sending. "owner": of the means of
        the shards that it owns, in the same order.
        """
        return self._strategy.residuals()

    def restore(self, old: Residuals, step: int) -> None:
        """Go on from a step with the residuals of old ranks, of whatever number."""
        self._strategy.restore(old)
        self._step = step

    def _hops(self, bucket: Bucket, images: int, ready: Pending | None, turn: Turn) -> Hops[None]:
        """Turn a bucket's sums of gradients into new weights; where they are to be clipped, into
        their mean."""
        if ready is not None:
            yield ready
        yield from self._counted(self._average(bucket, images, turn))
        self._landed += 1

    def _average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[None]:
        self._updater.set_out(self._gradient)
        bound = yield from self._strategy.average(bucket, images, turn)
        self._bound = max(self._bound, bound)
        self._finite = self._finite and bool(np.isfinite(bound))
        if not self._clips:
            yield from self._move(bucket, images, turn)

    def _move(self, bucket: Bucket, images: int, turn: Turn) -> Hops[None]:
        """Move the weights of every rank by a bucket's mean."""
        if move := self._strategy.move(bucket, images):
            self._updater.update(move)
        if self._strategy.spreads and self._wire.ranks.size > 1:
            finite = yield from self._strategy.spread(bucket, turn)
            self._finite = self._finite and finite

    def _counted(self, hops: Hops[None]) -> Hops[None]:
        """The hops, with the seconds in which any are under way."""
        if not self._under_way:
            self._busy_since = time.perf_counter()
        self._under_way += 1
        yield from hops
        self._under_way -= 1
        if not self._under_way:
            self._seconds += time.perf_counter() - self._busy_since


def needs_master(rank: int, size: int, kind: str, update: str) -> bool:
    """Whether this rank must keep exact weights beside the weights that all ranks share."""
    return rank == 0 and size > 1 and is_lossy(kind) and update == "root"
