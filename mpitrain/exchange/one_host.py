"""The strategy `window`: float32 through the memory that the ranks of one host share."""

from __future__ import annotations

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.strategy import Parts, Strategy, Turn
from mpitrain.exchange.window import Window
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import Array


class SharedWindow(Strategy):
    """Exact sums, in rank order. Raises UserError on every rank if ranks cannot share memory.

    Copies vectors in and out; in_place.py is for those that lie in shared memory themselves.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        longest = max(bucket.size for bucket in parts.buckets)
        self._window: Window[Array] = Window(parts.wire.shared, longest, apart=parts.apart)

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        x = self.parts.gradients[bucket.number]
        yield from self._window.mean(x, images, self.parts.to_all, turn.number)
        return 0.0

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        y, w = self.weights(bucket)
        yield from self._window.spread(y, w, turn.number)
        return True
