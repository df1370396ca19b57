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
from mpitrain.exchange.codec import DeviceCodec
from mpitrain.exchange.codec_numpy import BLOCK, blocks
from mpitrain.exchange.message import HEADER, Kind, pack, unpack
from mpitrain.exchange.wire import Wire
from mpitrain.runtime.array import Array

Bytes = NDArray[np.uint8]


class CodedMean:
    """The mean of buckets over ranks, coded. Keeps this rank's residuals: of its own parts, and of the shards that it owns."""

    def __init__(self, wire: Wire, codec: DeviceCodec, buckets: Sequence[Bucket], everywhere: bool) -> None:
        """everywhere: every rank needs the mean, else only rank 0."""
        self._wire, self._codec = wire, codec
        self._targets = range(wire.size) if everywhere else range(1)
        coded = [bucket for bucket in buckets if bucket.coded]
        longest = max((bucket.stop - bucket.start for bucket in coded), default=0)
        self._codes = codec.bytes(blocks(longest) * codec.record)
        self._shard = codec.floats(-(-blocks(longest) // wire.size) * BLOCK)
        self._places: dict[int, tuple[int, int]] = {}
        at, owned = 0, 0
        for bucket in coded:
            start, stop = self._shards(bucket.stop - bucket.start)[wire.rank]
            self._places[bucket.number] = (at, owned)
            at, owned = at + bucket.stop - bucket.start, owned + stop - start
        self.residual = codec.floats(at)
        """What this rank's codes of its parts left out, bucket after bucket."""
        self.owner_residual = codec.floats(owned if wire.size > 2 else 0)
        """What its codes of the means it owns left out."""
        self.bound = 0.0
        """Largest possible error of a value of this step's means, over the values whose mean this rank made; infinite for bad ones."""

    def __call__(self, bucket: Bucket, gradient: Array, images: int, step: int) -> bool:
        """Replace the bucket's sums (n,) by the mean over all `images`. Returns whether this rank now has it."""
        part = self._places[bucket.number][0]
        self._codec.encode(
            self._view(gradient.size), gradient, self.residual.part(part, part + gradient.size)
        )
        if self._wire.size == 2:
            self._whole(bucket, gradient, images, step)
        else:
            self._sharded(bucket, gradient, images, step)
        return self._wire.rank in self._targets

    def _whole(self, bucket: Bucket, gradient: Array, images: int, step: int) -> None:
        """Two ranks: whole parts cross, and whoever needs the mean adds both."""
        rank, kind = self._wire.rank, self._kind(bucket, gradient.size, step)
        mine = pack(kind, self._read(0, gradient.size))
        found = self._cross(
            [mine if target in self._targets else None for target in range(2)],
            [self._length(gradient.size) if rank in self._targets else 0] * 2,
            mine,
        )
        if rank in self._targets:
            self.bound = max(self.bound, self._add(gradient, found, kind, images))

    def _sharded(self, bucket: Bucket, gradient: Array, images: int, step: int) -> None:
        """Three and more ranks: parts to the owners of shards, means from them."""
        wire = self._wire
        cuts = self._shards(gradient.size)
        kinds = [self._kind(bucket, stop - start, step) for start, stop in cuts]
        start, stop = cuts[wire.rank]
        parts = [
            pack(kind, self._read(a, b)) if b > a else None for kind, (a, b) in zip(kinds, cuts, strict=True)
        ]
        found = self._cross(parts, [self._length(stop - start)] * wire.size, parts[wire.rank])
        mine: Bytes | None = None
        if stop > start:
            shard = self._shard.part(0, stop - start)
            bound = self._add(shard, found, kinds[wire.rank], images)
            at = self._places[bucket.number][1]
            self._codec.encode(self._view(shard.size), shard, self.owner_residual.part(at, at + shard.size))
            records = self._read(0, shard.size)
            mine = pack(kinds[wire.rank], records)
            self.bound = max(self.bound, bound + float(self._codec.bounds(records).max()))
        gets = wire.rank in self._targets
        means = self._cross(
            [mine if rank in self._targets else None for rank in range(wire.size)],
            [self._length(b - a) if gets else 0 for a, b in cuts],
            mine,
        )
        if gets:
            for rank, (a, b) in enumerate(cuts):
                if b > a:
                    self._load(means[rank], kinds[rank], rank)
                    self._codec.decode_add(gradient.part(a, b), self._view(b - a), first=True)

    def _cross(
        self, outgoing: Sequence[Bytes | None], sizes: Sequence[int], mine: Bytes | None
    ) -> list[Bytes]:
        """Send and receive; the own message takes its place among those that came."""
        incoming = [np.empty(size, np.uint8) for size in sizes]
        self._wire.all_to_all(outgoing, incoming)
        if mine is not None:
            incoming[self._wire.rank] = mine
        return incoming

    def _add(self, y: Array, messages: Sequence[Bytes], kind: Kind, images: int) -> float:
        """y = the mean of what the messages stand for, added in rank order. Returns the largest error that their codes allow."""
        steps = np.zeros(1)
        for rank, message in enumerate(messages):
            steps = steps + self._codec.bounds(self._load(message, kind, rank))
            self._codec.decode_add(y, self._view(y.size), first=rank == 0)
        self._codec.scale(y, 1 / images)
        return float(steps.max()) / images

    def _kind(self, bucket: Bucket, count: int, step: int) -> Kind:
        return Kind(self._codec.number, BLOCK, count, step, bucket.number)

    def _shards(self, size: int) -> list[tuple[int, int]]:
        count, ranks = blocks(size), self._wire.size
        return [(count * rank // ranks * BLOCK, count * (rank + 1) // ranks * BLOCK) for rank in range(ranks)]

    def _length(self, n: int) -> int:
        return HEADER.size + blocks(n) * self._codec.record if n else 0

    def _view(self, n: int) -> Array:
        return self._codes.part(0, blocks(n) * self._codec.record)

    def _read(self, start: int, stop: int) -> Bytes:
        """The records of the values [start, stop) that were coded last."""
        record = self._codec.record
        with self._codes.host() as codes:
            records: Bytes = codes[blocks(start) * record : blocks(stop) * record].copy()
            return records

    def _load(self, message: Bytes, kind: Kind, sender: int) -> Bytes:
        """Check a message and bring its records to the device. Returns them."""
        records = unpack(message, kind, sender)
        self._codes.write(records)
        return records
