"""The strategy `float32`: MPI adds up gradients and broadcasts weights, without rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.move import Move
from mpitrain.exchange.strategy import Strategy, Turn
from mpitrain.mpi.hops import Hops

LANE = 3
"""Transfer's lane for sums; allreduce_hops and broadcasts also use the next one. Coded messages
have the lower ones."""


class Float32(Strategy):
    """Rank 0 or all ranks get the sum; a single rank has it."""

    lanes: ClassVar[Mapping[int, str]] = {LANE: "gradients", LANE + 1: "weights"}

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        parts, transfer = self.parts, self.parts.wire.transfer
        x = parts.gradients[bucket.number]
        if transfer.size > 1:
            with x.host(write=parts.to_all or transfer.rank == 0) as values:
                if parts.to_all:
                    yield from transfer.allreduce_hops(values, LANE)
                else:
                    yield transfer.start_reduce(values, LANE)
        self.divide(bucket, images)
        return 0.0

    def divide(self, bucket: Bucket, images: int) -> None:
        """The sum becomes the mean, if somebody looks at it before it moves weights."""
        if self.parts.apart and (self.parts.to_all or self.parts.wire.ranks.rank == 0):
            self.parts.scale(self.parts.gradients[bucket.number], 1 / images)

    def move(self, bucket: Bucket, images: int) -> Move | None:
        """The optimiser divides as it reads, for that saves a way through memory."""
        return self._whole(bucket, 1.0 if self.parts.apart else 1 / images)

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        y, w = self.weights(bucket)
        if w is not None and self.parts.master is not None:
            y.copy_from(w)
        transfer = self.parts.wire.transfer
        start = transfer.start_star if self.root_only else transfer.start_broadcast
        with y.host(write=w is None, read=w is not None) as values:
            yield start(values, LANE + 1)
        return True
