"""The strategy `exact`: sums that do not depend on who adds what up in which order.

Every piece of a gradient becomes whole multiples of 2^-36 (kernels/exact.cl), which are added up as
integers of 64 bits: on a rank over its pieces of the batch, then over ranks. So twice as much
travels as with `float32`.
"""

from __future__ import annotations

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.plain import LANE, Float32
from mpitrain.exchange.strategy import Parts, Turn
from mpitrain.job.cut import parts as count_of_parts
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import Array

CHUNK = 4096
"""Values that a work-item adds on a CPU."""


class Exact(Float32):
    """Adds up in fixed point what a step computes piece by piece."""

    alone = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        device = parts.device
        self._kernels = device.program("exact")
        self._totals = {
            bucket.number: device.empty((bucket.size,), np.int64) for bucket in parts.buckets
        }
        self._chunk = CHUNK if device.long_items else 1
        self._begun: set[int] = set()
        """Buckets that have a part of this step's sum."""

    def add(self, bucket: Bucket) -> None:
        x, total = self.parts.gradients[bucket.number], self._totals[bucket.number]
        self._kernels.add_exact(
            self._items(x), total, x, x.size, self._chunk, int(bucket.number not in self._begun)
        )
        self._begun.add(bucket.number)

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        self.add(bucket)
        self._begun.discard(bucket.number)
        x, total = self.parts.gradients[bucket.number], self._totals[bucket.number]
        transfer, to_all = self.parts.wire.transfer, self.parts.to_all
        if transfer.size > 1:
            with total.host(write=to_all or transfer.rank == 0) as values:
                if to_all:
                    yield from transfer.allreduce_hops(values, LANE)
                else:
                    yield transfer.start_reduce(values, LANE)
        self._kernels.take_exact(self._items(x), x, total, x.size, self._chunk)
        self.divide(bucket, images)
        return 0.0

    def _items(self, x: Array) -> int:
        return count_of_parts(x.size, self._chunk)
