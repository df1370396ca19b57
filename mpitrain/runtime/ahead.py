"""What goes between host and device while that computes, through pinned memory (pinned.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyopencl as cl
from numpy.typing import NDArray

from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device, Mark
from mpitrain.runtime.pinned import pin

PLACES = 2
"""One is read by the device while the other is filled."""


class InTurn:
    """Pinned places for host arrays on their way to a device, which they take in turn."""

    def __init__(self, device: Device, nbytes: int) -> None:
        """nbytes: of the largest array."""
        self._places = [device.pinned.take(nbytes) for _ in range(PLACES)]
        self.next = 0
        """Number of the place that is filled next."""

    def copy(self, host: NDArray[Any]) -> NDArray[Any]:
        """A copy of an array in the next place. The one before the last one has arrived."""
        place = self._places[self.next]
        self.next = (self.next + 1) % PLACES
        copied: NDArray[Any] = place.bytes[: host.nbytes].view(host.dtype)
        np.copyto(copied, host.reshape(-1))
        return copied


class Ahead:
    """Copies of host arrays to a device, on a queue of their own."""

    def __init__(self, device: Device, nbytes: int) -> None:
        """nbytes: of the largest array."""
        self._queue, self._pinned = cl.CommandQueue(device.context), InTurn(device, nbytes)
        self._arrays = [device.empty((nbytes,), np.uint8) for _ in range(PLACES)]
        self._brought: tuple[NDArray[Any], Array, cl.Event] | None = None

    def bring(self, host: NDArray[Any]) -> None:
        """Set an array on its way that `take` will be asked for. What read the one before the last
        one has been done."""
        array = self._arrays[self._pinned.next]
        pinned = self._pinned.copy(host).view(np.uint8)
        event = cl.enqueue_copy(self._queue, array.memory.buffer, pinned, is_blocking=False)
        self._queue.flush()
        self._brought = host, array, event

    def take(self, host: NDArray[Any]) -> Array | None:
        """The array as bytes on the device, if it was brought last; None if not."""
        if self._brought is None or not same_numbers(host, self._brought[0]):
            return None
        _, array, event = self._brought
        self._brought = None
        event.wait()
        return array


class Late:
    """A copy of a device's array that the host asks for before it needs it."""

    def __init__(self, array: Array) -> None:
        self._array, self._place = array, array.device.pinned.take(array.nbytes)
        self._pinned = self._place.bytes[: array.nbytes]
        self._event: cl.Event | None = None

    def ask(self) -> None:
        """Queue it, behind what has been queued so far."""
        queue, (memory, offset, _) = self._array.device.queue, self._array.place
        self._event = cl.enqueue_copy(
            queue, self._pinned, memory.buffer, src_offset=offset, is_blocking=False
        )
        queue.flush()

    def get(self) -> NDArray[Any]:
        """What was asked for, once it is there."""
        assert self._event is not None, "it has been asked for"
        self._event.wait()
        found: Any = self._pinned.view(self._array.dtype)
        copied: NDArray[Any] = found.reshape(self._array.shape).copy()
        return copied


class Copies:
    """Copies between arrays of a device and memory of the host, both ways at once."""

    def __init__(self, device: Device, memory: Sequence[NDArray[Any]]) -> None:
        """memory: all that is copied to and from, pinned until `close`."""
        self._device, self._downs = device, cl.CommandQueue(device.context)
        self._pins = [pin(device.context, each) for each in memory]
        self.pinned = None not in self._pins
        """Whether the driver has pinned it; copies take five times as long where it has not."""

    def close(self) -> None:
        """Let go of the memory, which may be freed from now on."""
        self._device.queue.finish()
        self._downs.finish()
        for each in self._pins:
            if each is not None:
                each.release()
        self._pins.clear()

    def down(self, pairs: Sequence[tuple[NDArray[Any], Array]], queued: bool) -> Mark:
        """Set copies of arrays on their way to the host; done when they are there.

        queued: behind what is queued on the device so far; else at once.
        """
        after = None
        if queued and pairs:
            after = [cl.enqueue_marker(self._device.queue)]
            self._device.queue.flush()
        events = []
        for host, array in pairs:
            if host.size:
                memory, offset, _ = array.place
                events.append(
                    cl.enqueue_copy(
                        self._downs, host, memory.buffer, src_offset=offset, wait_for=after,
                        is_blocking=False,
                    )
                )  # fmt: skip
        self._downs.flush()
        return Mark(*events)

    def up(self, pairs: Sequence[tuple[NDArray[Any], Array]]) -> Mark:
        """Queue copies of host memory to arrays, behind what is queued so far; done when it has
        been read."""
        queue, events = self._device.queue, []
        for host, array in pairs:
            if host.size:
                memory, offset, _ = array.place
                events.append(
                    cl.enqueue_copy(
                        queue, memory.buffer, host, dst_offset=offset, is_blocking=False
                    )
                )
        if events:
            self._device.last = events[-1]
            queue.flush()
        return Mark(*events)


def same_numbers(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two views show the same numbers of the same memory."""
    where = (each.__array_interface__["data"] for each in (a, b))
    return len(set(where)) == 1 and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
