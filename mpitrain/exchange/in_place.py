"""The strategy `window` where the ranks' vectors themselves lie in memory that all of them share:
exact, and nothing is copied.

The optimiser adds up the gradients, in rank order, as it reads them. Where the ranks have one copy
of the weights, each moves a shard of it.
"""

from __future__ import annotations

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.home import Home
from mpitrain.exchange.move import Move
from mpitrain.exchange.strategy import Parts, Strategy, Turn
from mpitrain.exchange.window import COPIED, WRITTEN
from mpitrain.job.cut import aligned_shards
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import ALIGNED


class InPlace(Strategy):
    """Barriers between computing gradients, moving weights, and computing with them."""

    spreads = True

    def __init__(self, parts: Parts, home: Home) -> None:
        """home: where the gradients and weights in `parts` lie."""
        super().__init__(parts)
        self._host, self._home = parts.wire.shared, home
        self._gradients = parts.device.around(home.gradients.reshape(-1))
        self._moves: dict[int, Move | None] = {}

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        """Wait until every rank has computed its part of the gradient."""
        with self.parts.gradients[bucket.number].host():
            yield self._host.start_barrier(COPIED)
        return 0.0

    def move(self, bucket: Bucket, images: int) -> Move | None:
        if bucket.number not in self._moves:
            self._moves[bucket.number] = self._make_move(bucket, images)
        return self._moves[bucket.number]

    def _make_move(self, bucket: Bucket, images: int) -> Move | None:
        host, home = self._host, self._home
        start, stop = bucket.start, bucket.stop
        if home.weights is not None:
            first, last = aligned_shards(bucket.size, host.size, ALIGNED)[host.rank]
            start, stop = start + first, start + last
        if start >= stop:
            return None
        gradients = self._gradients.part(start, self._gradients.size)
        return Move(start, stop, gradients, host.size, home.apart, 1 / images)

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        """Wait until every rank has moved its weights."""
        move = self._moves[bucket.number]
        with self.parts.weights.part(bucket.start, bucket.stop).host():
            yield self._host.start_barrier(WRITTEN, 4 * (move.stop - move.start) if move else 0)
        return True
