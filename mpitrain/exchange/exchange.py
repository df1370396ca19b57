"""From every rank's gradient sums to new weights on every rank, a bucket at a time: introduces mean, update and deltas."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.choice import KINDS, LOSSY, STARS
from mpitrain.exchange.codec import DeviceCodec, make_codec, make_scale
from mpitrain.exchange.deltas import Deltas
from mpitrain.exchange.leaders import Leaders
from mpitrain.exchange.mean import PLAIN, Mean, Place, own_values, plain_hops, star_hops
from mpitrain.exchange.residuals import Residuals
from mpitrain.exchange.stream import MOST, Stream
from mpitrain.exchange.window import Window
from mpitrain.job.errors import UserError
from mpitrain.mpi.hops import Hops, Pending, complete
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

PIECE = 1 << 22
"""Values of a residual that are brought to the device at once (16 MiB)."""


@dataclass(frozen=True)
class ExchangeReport:
    """What one step's exchange did, as this rank saw it."""

    bytes_sent: int
    error_bound: float
    """Largest error that coding can have made in a value of the mean, over the coded buckets: known to ranks that get the mean (rank 0,
    or all when replicated), 0 on the others and where nothing is coded, infinity when a gradient was not finite."""
    finite: bool
    """Whether every coded block was finite, the same on every rank; float32 carries NaN and infinity as they are."""
    seconds: float
    """With at least one complete bucket not yet turned into new weights."""
    hidden: float
    """Of these, behind the backward pass."""


@dataclass(frozen=True)
class Sampled:
    """What coding left out of one bucket in the last step, as this rank has it."""

    bucket: int
    sender: Array
    owner: Array | None
    """Of the shard of the mean that this rank owns, None where it owns none."""
    start: int
    """Where in the bucket that shard starts."""
    flushed: int
    """Values of this rank that were coded as zero and are not."""


class Exchange:
    """`send` each bucket of the gradient as soon as it is complete; new weights follow, at the latest when `finish` returns.

    update "root": rank 0 gets the mean, applies it to its master weights, and every rank's weights follow the master's by deltas (or
    are the master's, where nothing is lossy). "replicated": every rank gets the same mean and applies it to its own weights.
    All ranks send the same buckets in one order. With `streaming` a thread takes them further, several at a time, on a queue of its own
    of the device (`Device.beside`); what fails there is raised by `finish`.
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
        apply: Callable[[int, int, Array], None],
        master: Array | None = None,
        streaming: bool = True,
        begin: Callable[[Array], None] | None = None,
        alive: Callable[[], None] | None = None,
    ) -> None:
        """weights, gradient: flat float32 vectors of one layout; gradients are sums over images, and spent by `send`.

        apply(start, stop, mean) moves [start, stop) of the master weights on rank 0 (update "root") or of `weights` on every rank
        ("replicated") by the mean gradient (stop - start,), with work queued on `device.beside()` (one rank: on
        `device`) or done when it returns. master: rank 0's
        float32 weights where `needs_master`, equal to `weights` to begin with; elsewhere None or `weights` itself. begin(gradient) is
        called as each bucket sets out, alive() at each of its hops. Raises UserError for a kind or update that is none.
        """
        if kind not in (*KINDS, *STARS):
            raise UserError(f"exchange {kind}: expected {', '.join(KINDS)}")
        if kind in STARS and update != "root":
            raise UserError(f"exchange {kind}: rank 0 has the mean alone; expected update root, got {update}")
        if update not in ("root", "replicated"):
            raise UserError(f"update {update}: expected root or replicated")
        self._wire, self._main, self._star = wire, device, kind in STARS
        self._device = device = device.beside() if wire.ranks.size > 1 else device
        self._weights, self._gradient = weights.on(device), gradient.on(device)
        self._parts = {bucket.number: self._gradient.part(bucket.start, bucket.stop) for bucket in buckets}
        self._to_all, self._apply = update == "replicated", apply
        self._begin = begin or (lambda gradient: None)
        self._scale = make_scale(device)
        lossy = kind in LOSSY and wire.ranks.size > 1
        coded = [bucket for bucket in buckets if bucket.coded] if lossy else []
        self._coded = {bucket.number: nth for nth, bucket in enumerate(coded)}
        own_master = master is not None and master is not weights
        if needs_master(wire.ranks.rank, wire.ranks.size, kind, update) and coded and not own_master:
            raise ValueError("rank 0 needs master weights of its own beside the weights that all ranks share")
        self._master = master.on(device) if master is not None and own_master else None
        self._window: Window[Array] | None = None
        if kind == "window" and wire.ranks.size > 1:
            self._window = Window(wire.shared, max(bucket.stop - bucket.start for bucket in buckets))
        longest = max((bucket.stop - bucket.start for bucket in coded), default=0)
        self._leaders = Leaders(wire, longest, everyone=self._star or not coded)
        self._slots: list[_Slot] = []
        self._residuals: dict[str, Array] = {}
        self._places: dict[int, tuple[int, int, int, int]] = {}
        self.owned: list[tuple[int, int]] = []
        """Ranges of the flat vector that the residual "owner" stands for, in its order."""
        if coded:
            self._residuals = {name: device.zeros((0,)) for name in ("sender", "owner")}
        if coded and self._leaders.wire:
            self._start(self._leaders.wire, make_codec(STARS.get(kind, kind), device), coded, longest)
        device.finish()
        self._stream: Stream | None = None
        if streaming and wire.ranks.size > 1 and wire.ranks.threads:
            self._stream = Stream(device.finish, alive or (lambda: None))
        self._step = self._begun = self._under_way = 0
        self._sample: int | None = None
        self._flushed = 0
        self._since = 0.0
        self._clear()

    def _start(self, wire: Wire, codec: DeviceCodec, coded: Sequence[Bucket], longest: int) -> None:
        """Make what only a rank that codes needs. wire: of those who do."""
        for _ in range(min(MOST, len(coded))):
            deltas = None if self._to_all else Deltas(wire.transfer, codec, longest, self._star)
            self._slots.append(_Slot(Mean(wire.transfer, codec, self._to_all, self._star), deltas))
        sent = owned = 0
        for bucket in coded:
            size = bucket.stop - bucket.start
            start, stop = self._own(size)
            self._places[bucket.number] = (sent, sent + size, owned, owned + stop - start)
            if stop > start:
                self.owned.append((bucket.start + start, bucket.start + stop))
            sent, owned = sent + size, owned + stop - start
        sizes = {"sender": sent, "owner": owned}
        self._residuals = {name: self._device.zeros((size,)) for name, size in sizes.items()}

    @property
    def coders(self) -> Wire | None:
        """The ranks that code; None on a rank that does not, and where nothing is coded."""
        return self._leaders.wire if self._coded else None

    @property
    def shares_owned(self) -> bool:
        """Whether each rank that codes owns a part of each coded bucket (else nobody owns any)."""
        return self._leaders.count > 2 and not self._star

    @property
    def codes(self) -> bool:
        """Whether any rank codes anything."""
        return bool(self._coded)

    @property
    def seat(self) -> tuple[int, int]:
        """This rank's number among those that code (-1: it does not), and how many these are."""
        return self._leaders.number, self._leaders.count

    def __str__(self) -> str:
        """Who codes, if that is not every rank."""
        if self._leaders.cramped:
            return "every rank codes, as hosts lack shared memory"
        if self._leaders.count < self._wire.ranks.size:
            return f"between {self._leaders.count} hosts, shared memory within"
        return ""

    def _clear(self) -> None:
        self._bound, self._finite, self._seconds = 0.0, True, 0.0
        self._sent = self._wire.bytes_sent

    def sample(self, number: int) -> None:
        """Count in the next step what coding flushes to zero in one bucket: the number-th of those that are coded, round and round."""
        coded = sorted(self._coded) if self.coders else []
        self._sample = coded[number % len(coded)] if coded else None

    def sampled(self) -> Sampled | None:
        """What was left out of the bucket that `sample` chose, after `finish`; None on a rank that codes nothing."""
        if self._sample is None:
            return None
        number, self._sample = self._sample, None
        sent, end, owned, last = self._places[number]
        sender = self._residuals["sender"].part(sent, end)
        return Sampled(number, sender, self._owner(owned, last), self._own(end - sent)[0], self._flushed)

    def send(self, bucket: Bucket, images: int) -> None:
        """Start a bucket, which is complete when the work queued on the device so far is done. images: of all ranks in this step."""
        ready = self._main.mark() if self._wire.ranks.size > 1 else None
        hops = self._hops(bucket, images, ready, self._begun)
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

    def close(self) -> None:
        """End what runs beside; nothing may be sent afterwards."""
        if self._stream is not None:
            self._stream.close()

    def _hops(self, bucket: Bucket, images: int, ready: Pending | None, number: int) -> Hops[None]:
        """A bucket from gradient sums to new weights."""
        if ready is not None:
            yield ready
        self._set_out()
        gradient = self._parts[bucket.number]
        self._begin(self._gradient)
        if self._window is not None:
            yield from self._window.mean(gradient, images, self._to_all, number)
        elif bucket.number in self._coded:
            self._note((yield from self._coded_mean(bucket, gradient, images)))
        elif self._star and self._wire.ranks.size > 1:
            yield from star_hops(self._wire.transfer, gradient, self._scale, images)
        else:
            yield from plain_hops(self._wire.transfer, gradient, self._to_all, self._scale, images)
        if self._to_all or self._wire.ranks.rank == 0:
            self._apply(bucket.start, bucket.stop, gradient)
        if not self._to_all and self._wire.ranks.size > 1:
            yield from self._spread(bucket, number)
        self._arrive()

    def _coded_mean(self, bucket: Bucket, gradient: Array, images: int) -> Hops[float]:
        """The mean of a coded bucket where it is wanted, and the bound of its error (else 0)."""
        nth, bound = self._coded[bucket.number], 0.0
        yield from self._leaders.gather(gradient, nth)
        if self._slots:
            sent, end, owned, last = self._places[bucket.number]
            residual, owner = self._residuals["sender"].part(sent, end), self._owner(owned, last)
            mean = self._slots[nth % len(self._slots)].mean
            mean.watched = bucket.number == self._sample
            bound = yield from mean.hops(gradient, images, Place(self._step, bucket.number), residual, owner)
            if mean.watched:
                self._flushed = mean.flushed
        if self._to_all:
            bound = yield from self._leaders.spread(gradient, nth, bound)
        return bound

    def _spread(self, bucket: Bucket, number: int) -> Hops[None]:
        """Rank 0's new weights of a bucket to every rank."""
        y, root = self._weights.part(bucket.start, bucket.stop), self._wire.ranks.rank == 0
        w = (self._master or self._weights).part(bucket.start, bucket.stop) if root else None
        if bucket.number in self._coded:
            yield from self._coded_spread(bucket, y, w)
            return
        if self._window is not None:
            yield from self._window.spread(y, w, number)
            return
        if w is not None and self._master is not None:
            y.copy_from(w)
        with y.host(write=not root) as values:
            start = self._wire.transfer.start_star if self._star else self._wire.transfer.start_broadcast
            yield start(values, PLAIN + 1)

    def _coded_spread(self, bucket: Bucket, y: Array, w: Array | None) -> Hops[None]:
        """y moves towards rank 0's w on every rank; a host's leader hands on its own y, which only codes have moved."""
        nth, finite = self._coded[bucket.number], True
        if self._slots:
            deltas = self._slots[nth % len(self._slots)].deltas
            assert deltas is not None
            finite = yield from deltas.hops(y, w, Place(self._step, bucket.number))
        note = yield from self._leaders.spread(y, nth, 0.0 if finite else np.inf)
        # The others learn here that a gradient was not finite: their share of the weights is not either.
        self._finite = bool(np.isfinite(note)) and self._finite

    def _set_out(self) -> None:
        if not self._under_way:
            self._since = time.perf_counter()
        self._under_way += 1

    def _arrive(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._seconds += time.perf_counter() - self._since

    def residuals(self) -> dict[str, Array]:
        """What coding has left out so far, for a checkpoint of this rank: "sender" (all coded buckets, in the order given) and "owner"
        (the shards that this rank owns, `owned`); empty when nothing is coded. The sender's are sums, the owner's means."""
        return dict(self._residuals)

    def restore(self, old: Residuals, step: int) -> None:
        """Go on with residuals that ranks have left, as many as now or not, and with the step that comes next."""
        (rank, size), owners = self.seat, self.shares_owned
        for name, array in self._residuals.items():
            if name == "owner" and array.size:
                array.write(old.owner(rank, size))
            elif array.size:
                for start in range(0, array.size, PIECE):
                    stop = min(start + PIECE, array.size)
                    array.part(start, stop).write(old.sender(rank, size, start, stop, owners))
        self._step = step

    def _own(self, size: int) -> tuple[int, int]:
        """The range of a coded bucket of that size whose mean this rank makes."""
        return (0, 0) if self._star else own_values(size, *self.seat)

    def _owner(self, start: int, stop: int) -> Array | None:
        return self._residuals["owner"].part(start, stop) if stop > start else None

    def _note(self, bound: float) -> None:
        self._bound = max(self._bound, bound)
        self._finite = self._finite and bool(np.isfinite(bound))


@dataclass(frozen=True)
class _Slot:
    """The memory of one coded bucket on its way."""

    mean: Mean[Array]
    deltas: Deltas[Array] | None
    """Where rank 0 alone gets the mean."""


def needs_master(rank: int, size: int, kind: str, update: str) -> bool:
    """Whether this rank must keep float32 master weights beside the weights that all ranks share."""
    return rank == 0 and size > 1 and kind in LOSSY and update == "root"
