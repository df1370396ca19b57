"""The strategy `window`: float32 through the memory that the ranks of one host share."""

from __future__ import annotations

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.strategy import Parts, Strategy, Turn
from mpitrain.exchange.stream import BUCKETS_AT_ONCE
from mpitrain.exchange.window import SLOTS, Window, floats, slots_that
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


class SharedWindow(Strategy):
    """Exact sums, in rank order. Raises UserError on every rank if ranks cannot share memory.

    Vectors are copied in and out; in_place.py is for those that lie in shared memory themselves.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        longest, shared = max(bucket.size for bucket in parts.buckets), parts.wire.shared
        slots = slots_that(shared.has_room, longest) or SLOTS
        devices = parts.wire.agree.gather_facts(parts.device.shares_memory)
        # Of two devices with memory of their own each then sends and gets a vector once. Adding up
        # a half each, rank 0 would send half of its gradient, too, beside the weights.
        root_adds = len(devices) == 2 and not any(devices)
        self._window: Window[Array] = Window(
            shared, longest, slots, parts.apart, parts.device, root_adds
        )

    @classmethod
    def longest(cls, wire: Wire, device: Device, usual: int) -> int:
        """16 MiB where a device with memory of its own copies to shared memory, if there is room:
        that takes as long as the host's work on a bucket."""
        if wire.ranks.size == 1 or all(wire.agree.gather_facts(device.shares_memory)):
            return usual
        room = wire.shared.has_room(floats(2 * usual, BUCKETS_AT_ONCE))
        return 2 * usual if room else usual

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        x = self.parts.gradients[bucket.number]
        yield from self._window.mean(x, images, self.parts.to_all, turn.number)
        return 0.0

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        y, w = self.weights(bucket)
        yield from self._window.spread(y, w, turn.number)
        return True

    def close(self) -> None:
        self._window.close()

    def __str__(self) -> str:
        lacks = self._window.lacks
        return f"short of shared memory: {lacks}" if lacks else ""
