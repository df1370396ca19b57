"""Parts of a gradient to its mean, coded: the same bytes decide on every rank that gets it.

Each rank codes its part once. The owner of a shard decodes all parts of it, its own too, adds them in rank order, divides once, and
codes the mean for those who need it: two quantisations whatever the number of ranks. Two ranks exchange their whole parts, and one
quantisation is enough. Both quantisations keep what they could not say for the next step (error feedback).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec import Codec
from mpitrain.exchange.message import HEADER, Kind, pack, unpack
from mpitrain.exchange.table import BLOCK
from mpitrain.exchange.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


def shard(values: int, rank: int, size: int) -> tuple[int, int]:
    """The values [start, stop) of a bucket that a rank owns, whole blocks."""
    blocks = values // BLOCK
    return blocks * rank // size * BLOCK, blocks * (rank + 1) // size * BLOCK


class CodedMean:
    """The mean of buckets over ranks, coded. Keeps this rank's residuals: of its own parts, and of the shards that it owns."""

    def __init__(
        self, wire: Wire, device: Device, codec: Codec, buckets: Sequence[Bucket], everywhere: bool
    ) -> None:
        """everywhere: every rank needs the mean, else only rank 0."""
        self._wire, self._codec, self._everywhere = wire, codec, everywhere
        self._coded = {bucket.number: bucket for bucket in buckets if bucket.coded}
        longest = max((bucket.stop - bucket.start for bucket in self._coded.values()), default=0)
        codes, scales = codec.sizes(longest)
        self._codes, self._scales = device.empty((codes,), np.uint8), device.empty((scales,), np.uint8)
        self._sum = device.empty((-(-longest // wire.size) + BLOCK,))
        self._division = device.program("codec")
        self._places: dict[int, tuple[int, int]] = {}
        at, owned = 0, 0
        for bucket in self._coded.values():
            start, stop = shard(bucket.stop - bucket.start, wire.rank, wire.size)
            self._places[bucket.number] = (at, owned)
            at, owned = at + bucket.stop - bucket.start, owned + stop - start
        self.residual = device.zeros((at,))
        """What this rank's codes of its parts left out, bucket after bucket."""
        self.owner_residual = device.zeros((owned if wire.size > 2 else 0,))
        """What its codes of the means it owns left out."""
        self.bound = 0.0
        """Largest possible error of a value of the last mean, as far as this rank knows: over its own shard."""

    def __call__(self, bucket: Bucket, gradient: Array, images: int, step: int) -> bool:
        """Replace the bucket's sums (n,) by the mean over all `images`. Returns whether this rank now has it; others keep their part."""
        part = self._places[bucket.number][0]
        residual = self.residual.part(part, part + gradient.size)
        codes, scales = self._views(gradient.size)
        self._codec.encode(codes, scales, gradient, residual)
        if self._wire.size == 2:
            return self._whole(bucket, gradient, images, step)
        self._owned(bucket, gradient, images, step)
        return self._everywhere or self._wire.rank == 0

    def _whole(self, bucket: Bucket, gradient: Array, images: int, step: int) -> bool:
        """Two ranks: whole parts cross, and whoever needs the mean adds both."""
        rank, n = self._wire.rank, gradient.size
        gets = self._everywhere or rank == 0
        kind, length = self._kind(bucket, n, step), self._length(n)
        mine = pack(kind, *self._read(0, n))
        sends = self._everywhere or rank == 1
        messages: list[NDArray[np.uint8] | None] = [mine, mine]
        if not sends:
            messages[1 - rank] = None
        found = self._wire.exchange(messages, [length if gets else 0] * 2)
        if not gets:
            return False
        self.bound = max(self.bound, self._add(gradient, found, kind, images))
        return True

    def _owned(self, bucket: Bucket, gradient: Array, images: int, step: int) -> None:
        """Three and more ranks: parts to the owners of shards, means from them."""
        wire, n = self._wire, gradient.size
        shards = [shard(n, rank, wire.size) for rank in range(wire.size)]
        start, stop = shards[wire.rank]
        kinds = [self._kind(bucket, b - a, step) for a, b in shards]
        messages = [
            pack(kind, *self._read(a, b)) if b > a else None
            for kind, (a, b) in zip(kinds, shards, strict=True)
        ]
        found = wire.exchange(messages, [self._length(stop - start)] * wire.size)
        mine: NDArray[np.uint8] | None = None
        if stop > start:
            total = self._sum.part(0, stop - start)
            bound = self._add(total, found, kinds[wire.rank], images)
            codes, scales = self._views(stop - start)
            at = self._places[bucket.number][1]
            self._codec.encode(codes, scales, total, self.owner_residual.part(at, at + stop - start))
            mine = pack(kinds[wire.rank], *self._read(0, stop - start))
            self.bound = max(self.bound, bound + self._worst(mine))
        targets = range(wire.size) if self._everywhere else (0,)
        sizes = [self._length(b - a) if wire.rank in targets else 0 for a, b in shards]
        means = wire.exchange(
            [mine if rank in targets or rank == wire.rank else None for rank in range(wire.size)], sizes
        )
        if wire.rank in targets:
            for rank, (a, b) in enumerate(shards):
                if b > a:
                    self._load(means[rank], kinds[rank], rank)
                    self._codec.decode(gradient.part(a, b), *self._views(b - a), add=False)

    def _add(self, y: Array, messages: Sequence[NDArray[np.uint8]], kind: Kind, images: int) -> float:
        """y = the sum of what the messages stand for, in rank order, divided once. Returns the largest error that their codes allow."""
        steps = 0.0
        for rank, message in enumerate(messages):
            steps = steps + self._codec.step(self._load(message, kind, rank))
            self._codec.decode(y, *self._views(y.size), add=rank > 0)
        self._division.divide(-(-y.size // BLOCK), y, float(images), y.size)
        return float(np.max(steps, initial=0.0)) / images

    def _worst(self, message: NDArray[np.uint8]) -> float:
        scales = self._codec.sizes(self._count(message))[1]
        return float(np.max(self._codec.step(message[HEADER.size : HEADER.size + scales]), initial=0.0))

    def _count(self, message: NDArray[np.uint8]) -> int:
        return int(HEADER.unpack(message[: HEADER.size].tobytes())[4])

    def _kind(self, bucket: Bucket, count: int, step: int) -> Kind:
        return Kind(self._codec.number, BLOCK, count, step, bucket.number)

    def _length(self, n: int) -> int:
        return HEADER.size + sum(self._codec.sizes(n)) if n else 0

    def _views(self, n: int) -> tuple[Array, Array]:
        codes, scales = self._codec.sizes(n)
        return self._codes.part(0, codes), self._scales.part(0, scales)

    def _read(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Scales and codes of the values [start, stop) that were coded last."""
        (a, c), (b, d) = self._codec.sizes(start), self._codec.sizes(stop)
        with self._scales.host() as scales, self._codes.host() as codes:
            return scales[c:d].copy(), codes[a:b].copy()

    def _load(self, message: NDArray[np.uint8], kind: Kind, sender: int) -> NDArray[np.uint8]:
        """Check a message and bring it to the device. Returns its scales."""
        scales, codes = unpack(message, kind, self._codec.sizes(kind.count)[1], sender)
        self._codes.write(codes)
        self._scales.write(scales)
        return scales
