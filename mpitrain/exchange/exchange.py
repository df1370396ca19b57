"""From every rank's gradient sums to new weights on every rank, a bucket at a time: introduces mean, update and deltas."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec import DeviceCodec, make_codec, make_scale
from mpitrain.exchange.deltas import Deltas
from mpitrain.exchange.mean import Mean, Place, own_values, plain_mean
from mpitrain.exchange.wire import Wire
from mpitrain.report import UserError
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

Kind = Literal["float32", "float16", "dynamic8"]


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
    """In `send`, from first to last."""
    waited: float
    """Of these, waiting for other ranks' messages."""


class Exchange:
    """`send` each bucket of the gradient as soon as it is complete; new weights follow. All ranks send the same buckets in one order.

    update "root": rank 0 gets the mean, applies it to its master weights, and every rank's weights follow the master's by deltas (or
    are the master's, where nothing is lossy). "replicated": every rank gets the same mean and applies it to its own weights.
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
    ) -> None:
        """weights, gradient: flat float32 vectors of one layout; gradients are sums over images, and spent by `send`.

        apply(start, stop, mean) moves [start, stop) of the master weights on rank 0 (update "root") or of `weights` on every rank
        ("replicated") by the mean gradient (stop - start,). master: rank 0's float32 weights where `needs_master`, equal to `weights`
        to begin with; elsewhere None or `weights` itself. Raises UserError for a kind or update that is none.
        """
        if kind not in ("float32", "float16", "dynamic8"):
            raise UserError(f"exchange {kind}: expected float32, float16 or dynamic8")
        if update not in ("root", "replicated"):
            raise UserError(f"update {update}: expected root or replicated")
        self._wire, self._weights, self._gradient = wire, weights, gradient
        self._to_all, self._apply = update == "replicated", apply
        self._scale = make_scale(device)
        coded = [bucket for bucket in buckets if bucket.coded] if kind != "float32" and wire.size > 1 else []
        self._coded = {bucket.number for bucket in coded}
        self._master = weights if master is None else master
        if needs_master(wire.rank, wire.size, kind, update) and coded and self._master is weights:
            raise ValueError("rank 0 needs master weights of its own beside the weights that all ranks share")
        self._mean: Mean[Array] | None = None
        self._deltas: Deltas[Array] | None = None
        self._residuals: dict[str, Array] = {}
        self._places: dict[int, tuple[int, int, int, int]] = {}
        self.owned: list[tuple[int, int]] = []
        """Ranges of the flat vector that the residual "owner" stands for, in its order."""
        if coded:
            self._start(device, make_codec(kind, device), coded)
        self._step = 0
        self._clear()

    def _start(self, device: Device, codec: DeviceCodec, coded: Sequence[Bucket]) -> None:
        """Make what only a lossy exchange needs."""
        wire = self._wire
        self._mean = Mean(wire, codec, self._to_all)
        if not self._to_all:
            self._deltas = Deltas(wire, codec, max(bucket.stop - bucket.start for bucket in coded))
        sent = owned = 0
        for bucket in coded:
            size = bucket.stop - bucket.start
            start, stop = own_values(size, wire.rank, wire.size)
            self._places[bucket.number] = (sent, sent + size, owned, owned + stop - start)
            if stop > start:
                self.owned.append((bucket.start + start, bucket.start + stop))
            sent, owned = sent + size, owned + stop - start
        self._residuals = {"sender": device.zeros((sent,)), "owner": device.zeros((owned,))}

    def _clear(self) -> None:
        self._bound, self._finite, self._seconds = 0.0, True, 0.0
        self._sent, self._waited = self._wire.bytes_sent, self._wire.waited

    def send(self, bucket: Bucket, images: int) -> None:
        """Take a complete bucket all the way to new weights. images: of all ranks in this step.

        Raises RunError naming the rank when a message is not what was expected.
        """
        began = time.perf_counter()
        gradient = self._gradient.part(bucket.start, bucket.stop)
        place = Place(self._step, bucket.number)
        coded = bucket.number in self._coded
        if coded and self._mean is not None:
            sent, end, owned, last = self._places[bucket.number]
            residual, owner = self._residuals["sender"].part(sent, end), self._owner(owned, last)
            self._note(self._mean(gradient, images, place, residual, owner))
        else:
            plain_mean(self._wire, gradient, self._to_all, self._scale, images)
        if self._to_all or self._wire.rank == 0:
            self._apply(bucket.start, bucket.stop, gradient)
        if not self._to_all and self._wire.size > 1:
            self._spread(bucket, place, coded)
        self._seconds += time.perf_counter() - began

    def finish(self) -> ExchangeReport:
        """The end of a step: every rank now holds the new weights."""
        report = ExchangeReport(
            bytes_sent=self._wire.bytes_sent - self._sent,
            error_bound=self._bound,
            finite=self._finite,
            seconds=self._seconds,
            waited=self._wire.waited - self._waited,
        )
        self._step += 1
        self._clear()
        return report

    def residuals(self) -> dict[str, Array]:
        """What coding has left out so far, for a checkpoint of this rank: "sender" (all coded buckets, in the order given) and "owner"
        (the shards that this rank owns, `owned`); empty when nothing is coded. The sender's are sums, the owner's means."""
        return dict(self._residuals)

    def restore(self, residuals: Mapping[str, NDArray[Any]], step: int) -> None:
        """Go on with a checkpoint's residuals, and with the step that comes next. Raises UserError if they are of another shape."""
        for name, array in self._residuals.items():
            found = residuals.get(name)
            if found is None or found.size != array.size:
                came = "none" if found is None else f"{found.size} values"
                raise UserError(
                    f"residual {name!r} of the checkpoint: expected {array.size} values for {self._wire}, got {came}"
                )
            array.write(found.astype(np.float32, copy=False))
        self._step = step

    def _owner(self, start: int, stop: int) -> Array | None:
        return self._residuals["owner"].part(start, stop) if stop > start else None

    def _note(self, bound: float) -> None:
        self._bound = max(self._bound, bound)
        self._finite = self._finite and bool(np.isfinite(bound))

    def _spread(self, bucket: Bucket, place: Place, coded: bool) -> None:
        """Rank 0's new weights of a bucket to every rank."""
        y, root = self._weights.part(bucket.start, bucket.stop), self._wire.rank == 0
        w = self._master.part(bucket.start, bucket.stop) if root else None
        if coded and self._deltas is not None:
            # The others learn here that a gradient was not finite: their share of the weights is not either.
            self._finite = self._deltas(y, w, place) and self._finite
            return
        if w is not None and self._master is not self._weights:
            y.copy_from(w)
        with y.host(write=not root) as values:
            self._wire.broadcast(values)


def needs_master(rank: int, size: int, kind: str, update: str) -> bool:
    """Whether this rank must keep float32 master weights beside the weights that all ranks share."""
    return rank == 0 and size > 1 and kind != "float32" and update == "root"
