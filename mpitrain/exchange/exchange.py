"""From every rank's gradient sums to new weights on every rank, a bucket at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.deltas import Deltas
from mpitrain.exchange.mean import CodedMean
from mpitrain.exchange.wire import Wire
from mpitrain.runtime.array import Array

CODED = ("dynamic8", "float16")


def choose(kind: str, wire: Wire) -> tuple[str, str]:
    """What `auto` means for this job, and why in a few words."""
    if kind != "auto":
        return kind, f"--exchange {kind}"
    if wire.size == wire.local_size:
        return "float32", "all ranks share a host, whose memory is faster than a codec"
    return "dynamic8", "ranks on several hosts, whose links are slower than the codec"


class Exchange:
    """`send` each bucket of the gradient as it is complete: mean, update, and new weights follow.

    weights y: what every rank computes with. master w: what rank 0 updates, or y itself where nothing is lossy. update(start, stop,
    mean) applies the optimiser to w (on every rank when `replicated`, to y).
    """

    def __init__(
        self,
        wire: Wire,
        weights: Array,
        gradient: Array,
        buckets: Sequence[Bucket],
        kind: str,
        replicated: bool,
        update: Callable[[int, int, Array], None],
        master: Array,
    ) -> None:
        self._wire, self._device = wire, weights.device
        self._weights, self._gradient, self._master = weights, gradient, master
        self._replicated, self._update = replicated, update
        self.mean: CodedMean | None = None
        self._deltas: Deltas | None = None
        if kind in CODED and wire.size > 1:
            codec = make_codec(kind, self._device)
            self.mean = CodedMean(wire, codec, buckets, everywhere=replicated)
            if not replicated:
                self._deltas = Deltas(wire, codec, max(bucket.stop - bucket.start for bucket in buckets))
        self._scaling = make_codec("float16", self._device)
        self._step, self._images = 0, 1

    def begin(self, step: int, images: int) -> None:
        """A step whose gradients are sums over so many images, all ranks together."""
        self._step, self._images = step, images
        if self.mean:
            self.mean.bound = 0.0

    def send(self, bucket: Bucket) -> None:
        """Take a complete bucket all the way to new weights."""
        gradient = self._gradient.part(bucket.start, bucket.stop)
        coded = self.mean is not None and bucket.coded
        if coded and self.mean is not None:
            has_mean = self.mean(bucket, gradient, self._images, self._step)
        else:
            has_mean = self._plain_mean(gradient)
        if has_mean:
            self._update(bucket.start, bucket.stop, gradient)
        if self._replicated or self._wire.size == 1:
            return
        y, is_root = self._weights.part(bucket.start, bucket.stop), self._wire.rank == 0
        if coded and self._deltas:
            self._deltas(
                bucket, y, self._master.part(bucket.start, bucket.stop) if is_root else None, self._step
            )
            return
        if is_root and self._master is not self._weights:
            y.copy_from(self._master.part(bucket.start, bucket.stop))
        with y.host(write=not is_root) as host:
            self._wire.broadcast(host)

    def finish(self) -> None:
        """Return when every rank's weights are new; `send` has seen to it."""

    def _plain_mean(self, gradient: Array) -> bool:
        """The mean in float32 by MPI's own collectives, in place. Returns whether this rank has it."""
        has_mean = self._replicated or self._wire.rank == 0
        if self._wire.size > 1:
            with gradient.host(write=has_mean) as host:
                if self._replicated:
                    self._wire.allreduce(host)
                else:
                    self._wire.reduce_to_root(host)
        if has_mean:
            self._scaling.scale(gradient, 1 / self._images)
        return has_mean
