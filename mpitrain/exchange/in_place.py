"""Exchange within a host where the ranks' vectors themselves lie in memory that all of them share:
exact, and nothing is copied.

The optimiser adds up the gradients, in rank order, as it reads them. Where the ranks have one copy
of the weights, each moves a shard of rank 0's.
"""

from __future__ import annotations

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.home import Home
from mpitrain.exchange.move import Move
from mpitrain.exchange.window import COPIED, WRITTEN, Host
from mpitrain.job.cut import parts, shards
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import ALIGNMENT, Array
from mpitrain.runtime.device import Device

STRETCH = ALIGNMENT // 4
"""Values of which shards are multiples."""


class InPlace:
    """Exchanges the vectors in a Home, which `device` computes with."""

    def __init__(self, host: Host, home: Home, device: Device) -> None:
        self._host, self._home = host, home
        self._gradients = device.around(home.gradients.reshape(-1))
        self._moves: dict[int, Move | None] = {}

    def average(self, x: Array) -> Hops[None]:
        """Wait until every rank has computed its part x of the gradient."""
        with x.host():
            yield self._host.start_barrier(COPIED)

    def move(self, bucket: Bucket, images: int) -> Move | None:
        """What this rank moves of a bucket; None if it moves nothing."""
        if bucket.number not in self._moves:
            self._moves[bucket.number] = self._make_move(bucket, images)
        return self._moves[bucket.number]

    def _make_move(self, bucket: Bucket, images: int) -> Move | None:
        host, home = self._host, self._home
        start, stop = bucket.start, bucket.stop
        if home.weights is not None:
            cuts = shards(parts(bucket.size, STRETCH), host.size)
            first, last = cuts[host.rank]
            start, stop = start + first * STRETCH, min(stop, start + last * STRETCH)
        if start >= stop:
            return None
        gradients = self._gradients.part(start, self._gradients.size)
        return Move(start, stop, gradients, host.size, home.apart, 1 / images)

    def spread(self, w: Array, bucket: Bucket) -> Hops[None]:
        """Wait until every rank has moved its weights, of which w is the bucket's part."""
        move = self._moves[bucket.number]
        with w.host():
            yield self._host.start_barrier(WRITTEN, 4 * (move.stop - move.start) if move else 0)
