"""The strategy `window`: float32 through the memory that the ranks of one host share."""

from __future__ import annotations

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.in_place import InPlace
from mpitrain.exchange.move import Move
from mpitrain.exchange.strategy import Parts, Strategy, Turn
from mpitrain.exchange.window import Window
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import Array


class SharedWindow(Strategy):
    """Exact sums, in rank order. Raises UserError on every rank if ranks cannot share memory."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._in_place: InPlace | None = None
        if parts.home:
            self._in_place = InPlace(parts.wire.shared, parts.home, parts.device)
        else:
            longest = max(bucket.size for bucket in parts.buckets)
            self._window: Window[Array] = Window(parts.wire.shared, longest, apart=parts.apart)

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        x = self.parts.gradients[bucket.number]
        if self._in_place:
            yield from self._in_place.average(x)
        else:
            yield from self._window.mean(x, images, self.parts.to_all, turn.number)
        return 0.0

    def move(self, bucket: Bucket, images: int) -> Move | None:
        if self._in_place:
            return self._in_place.move(bucket, images)
        return super().move(bucket, images)

    @property
    def spreads(self) -> bool:
        return self._in_place is not None or super().spreads

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        y, w = self.weights(bucket)
        if self._in_place:
            yield from self._in_place.spread(y, bucket)
        else:
            yield from self._window.spread(y, w, turn.number)
        return True
