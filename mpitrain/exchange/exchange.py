"""From every rank's gradient sums to new weights on every rank: buckets through one strategy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec import make_scale
from mpitrain.exchange.plain import Float32
from mpitrain.exchange.registry import find, is_lossy
from mpitrain.exchange.residuals import Residuals
from mpitrain.exchange.strategy import Parts, Sampled, Turn
from mpitrain.exchange.stream import Stream
from mpitrain.job.errors import UserError
from mpitrain.mpi.hops import Hops, Pending, complete
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


@dataclass(frozen=True)
class ExchangeReport:
    """What one step's exchange did, as this rank saw it."""

    bytes_sent: int
    error_bound: float
    """Largest error that coding can have made in a value of the mean, over the coded buckets.

    Known to ranks that get the mean (rank 0, or all when replicated), 0 on the others and where
    nothing is coded, infinity when a gradient was not finite."""
    finite: bool
    """Whether every coded block was finite, the same on every rank.

    float32 carries NaN and infinity as they are."""
    seconds: float
    """In which a complete bucket had not yet become new weights."""
    hidden: float
    """Of these, behind the backward pass."""


class Updater(Protocol):
    """What an exchange needs of the training that it serves. With streaming a thread calls it."""

    def set_out(self, gradient: Array) -> None:
        """A bucket of the whole flat gradient (n,) begins to travel."""

    def update(self, start: int, stop: int, mean: Array) -> None:
        """Move the weights [start, stop) by the mean gradient (stop - start,).

        Of the master weights on rank 0 (update "root"), or of every rank ("replicated"). The work
        is done when this returns, or queued on `device.beside()` (one rank: on `device`).
        """

    def alive(self) -> None:
        """The exchange goes on; called at each hop, for a watchdog."""


class Exchange:
    """`send` each bucket as soon as it is complete; after `finish` every rank has new weights.

    update "root": rank 0 gets the mean and applies it to its master weights, which every rank's
    weights follow. "replicated": every rank gets the same mean and applies it to its own weights.
    All ranks send the same buckets in one order. With `streaming` a thread takes them further,
    several at a time, on a queue of its own of the device; what fails there `finish` raises.
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
    ) -> None:
        """weights, gradient: float32 (n,); gradients are sums over images, and spent by `send`.

        master: rank 0's float32 weights where `needs_master`, equal to `weights` to begin with;
        elsewhere None or `weights` itself. Collective. Raises UserError for a kind or update that
        is none.
        """
        strategy = find(kind)
        if strategy.root_only and update != "root":
            raise UserError(
                f"exchange {kind}: rank 0 has the mean alone; expected update root, got {update}"
            )
        if strategy.replicated_only and update != "replicated":
            raise UserError(
                f"exchange {kind}: every rank has the mean; expected update replicated, "
                f"got {update}"
            )
        if update not in ("root", "replicated"):
            raise UserError(f"update {update}: expected root or replicated")
        several = wire.ranks.size > 1
        self._wire, self._main, self._updater = wire, device, updater
        self._device = device = device.beside() if several else device
        self._gradient = gradient.on(device)
        self._gradients = {
            bucket.number: self._gradient.part(bucket.start, bucket.stop) for bucket in buckets
        }
        self._to_all = update == "replicated"
        own_master = master is not None and master is not weights
        parts = Parts(
            wire,
            device,
            weights.on(device),
            master.on(device) if master is not None and own_master else None,
            self._gradients,
            buckets,
            self._to_all,
            make_scale(device),
            kind.partition(":")[2],
        )
        self._strategy = (strategy if several else Float32)(parts)
        device.finish()
        self._stream: Stream | None = None
        if streaming and several and wire.ranks.threads:
            self._stream = Stream(device.finish, updater.alive)
        self._step = self._begun = self._under_way = 0
        self._since = 0.0
        self._clear()

    @property
    def coders(self) -> Wire | None:
        """The ranks that code; None on a rank that does not, and where nothing is coded."""
        return self._strategy.coders

    @property
    def shares_owned(self) -> bool:
        """Whether each rank that codes owns a part of each coded bucket (else nobody owns any)."""
        return self._strategy.shares_owned

    @property
    def codes(self) -> bool:
        """Whether any rank codes anything."""
        return self._strategy.codes

    @property
    def seat(self) -> tuple[int, int]:
        """This rank's number among those that code (-1: it does not), and how many there are."""
        return self._strategy.seat

    @property
    def owned(self) -> list[tuple[int, int]]:
        """Ranges of the flat vector that the residual "owner" stands for, in its order."""
        return self._strategy.owned

    def __str__(self) -> str:
        return str(self._strategy)

    def _clear(self) -> None:
        self._bound, self._finite, self._seconds = 0.0, True, 0.0
        self._sent = self._wire.bytes_sent

    def sample(self, number: int) -> None:
        """Count in the next step what coding flushes to zero in one bucket.

        The number-th of those that are coded, round and round.
        """
        self._strategy.sample(number)

    def sampled(self) -> Sampled | None:
        """After `finish`: what was left out of the bucket of `sample`; None where none is coded."""
        return self._strategy.sampled()

    def send(self, bucket: Bucket, images: int) -> None:
        """Start a bucket, which is complete when the work queued on the device so far is done.

        images: of all ranks in this step.
        """
        ready = self._main.mark() if self._wire.ranks.size > 1 else None
        hops = self._hops(bucket, images, ready, Turn(self._step, self._begun))
        self._begun += 1
        if self._stream is not None:
            self._stream.send(hops)
        else:
            complete(hops)

    def finish(self) -> ExchangeReport:
        """The end of a step: every rank now holds the new weights.

        Raises RunError naming the rank when a message was not what was expected.
        """
        self._main.finish()
        began = time.perf_counter()
        if self._stream is not None:
            self._stream.finish()
        self._device.finish()
        waited = time.perf_counter() - began
        report = ExchangeReport(
            bytes_sent=self._wire.bytes_sent - self._sent,
            error_bound=self._bound,
            finite=self._finite,
            seconds=self._seconds,
            hidden=max(0.0, self._seconds - waited) if self._stream is not None else 0.0,
        )
        self._step += 1
        self._begun = 0
        self._clear()
        return report

    @property
    def streams(self) -> bool:
        """Whether buckets travel in a thread of their own."""
        return self._stream is not None

    def close(self) -> None:
        """End the thread; nothing may be sent afterwards."""
        if self._stream is not None:
            self._stream.close()

    def residuals(self) -> dict[str, Array]:
        """What coding has left out so far, for a checkpoint of this rank; empty if nothing is
        coded.

        "sender": sums, of all coded buckets in the order given; "owner": means, of the shards that
        this rank owns, `owned`.
        """
        return self._strategy.residuals()

    def restore(self, old: Residuals, step: int) -> None:
        """Go on with residuals that ranks have left, as many as now or not, from a step on."""
        self._strategy.restore(old)
        self._step = step

    def _hops(self, bucket: Bucket, images: int, ready: Pending | None, turn: Turn) -> Hops[None]:
        """A bucket from gradient sums to new weights."""
        if ready is not None:
            yield ready
        self._set_out()
        self._updater.set_out(self._gradient)
        bound = yield from self._strategy.average(bucket, images, turn)
        self._bound = max(self._bound, bound)
        finite = bool(np.isfinite(bound))
        if self._to_all or self._wire.ranks.rank == 0:
            self._updater.update(bucket.start, bucket.stop, self._gradients[bucket.number])
        if not self._to_all and self._wire.ranks.size > 1:
            finite = (yield from self._strategy.spread(bucket, turn)) and finite
        self._finite = self._finite and finite
        self._arrive()

    def _set_out(self) -> None:
        if not self._under_way:
            self._since = time.perf_counter()
        self._under_way += 1

    def _arrive(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._seconds += time.perf_counter() - self._since


def needs_master(rank: int, size: int, kind: str, update: str) -> bool:
    """Whether this rank must keep float32 weights beside the weights that all ranks share."""
    return rank == 0 and size > 1 and is_lossy(kind) and update == "root"
