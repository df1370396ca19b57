"""The strategy `window`: float32 through the memory that the ranks of one host share."""

from __future__ import annotations

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.strategy import Parts, Strategy, Turn
from mpitrain.exchange.stream import BUCKETS_AT_ONCE
from mpitrain.exchange.window import SLOTS, Window, floats
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import Array


class SharedWindow(Strategy):
    """Exact sums, in rank order. Raises UserError on every rank if ranks cannot share memory.

    Vectors are copied in and out; in_place.py is for those that lie in shared memory themselves.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        longest, shared = max(bucket.size for bucket in parts.buckets), parts.wire.shared
        slots = BUCKETS_AT_ONCE if shared.has_room(floats(longest, BUCKETS_AT_ONCE)) else SLOTS
        devices = parts.wire.agree.gather_facts(parts.device.shares_memory)
        # Of two devices with memory of their own each then sends and gets a vector once: rank 0 the
        # other gradient and the weights, which is 1.5 vectors if each adds up a half.
        alone = len(devices) == 2 and not any(devices)
        self._window: Window[Array] = Window(
            shared, longest, slots, parts.apart, parts.device, alone
        )

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        x = self.parts.gradients[bucket.number]
        yield from self._window.mean(x, images, self.parts.to_all, turn.number)
        return 0.0

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        y, w = self.weights(bucket)
        yield from self._window.spread(y, w, turn.number)
        return True
