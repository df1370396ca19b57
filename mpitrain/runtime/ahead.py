"""Host arrays that a device gets while it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyopencl as cl
from numpy.typing import NDArray

from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

PLACES = 2
"""One is read by the device while the other is filled."""


class Ahead:
    """Copies on a queue of their own, from memory that the driver has pinned: a GPU then reads it
    by itself, while one of other memory keeps its queue waiting."""

    def __init__(self, device: Device, nbytes: int) -> None:
        """nbytes: of the largest array."""
        self._device, self._queue = device, cl.CommandQueue(device.context)
        self._places = [_Place(device, self._queue, nbytes) for _ in range(PLACES)]
        self._next = 0
        self._brought: tuple[NDArray[Any], _Place, cl.Event] | None = None

    def bring(self, host: NDArray[Any]) -> None:
        """Set an array on its way that `take` will be asked for. What read the one before the last
        one has been done."""
        place = self._places[self._next]
        self._next = (self._next + 1) % PLACES
        pinned, into = place.pinned[: host.nbytes], place.array.memory.buffer
        np.copyto(pinned.view(host.dtype).reshape(host.shape), host)
        event = cl.enqueue_copy(self._queue, into, pinned, is_blocking=False)
        self._queue.flush()
        self._brought = host, place, event

    def take(self, host: NDArray[Any]) -> Array | None:
        """The array as bytes on the device, if it was brought last; None if not."""
        if self._brought is None or not _same(host, self._brought[0]):
            return None
        _, place, event = self._brought
        self._brought = None
        event.wait()
        return place.array


class _Place:
    """The same number of bytes on the device and in pinned memory of the host."""

    def __init__(self, device: Device, queue: cl.CommandQueue, nbytes: int) -> None:
        self.array = device.empty((nbytes,), np.uint8)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR
        self._memory = cl.Buffer(device.context, flags, nbytes)
        kind: Any = np.dtype(np.uint8)
        mapped: Any = cl.enqueue_map_buffer(
            queue, self._memory, cl.map_flags.WRITE, 0, (nbytes,), kind, is_blocking=True
        )
        self.pinned: NDArray[np.uint8] = mapped[0]


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two views show the same numbers of the same memory."""
    where = (each.__array_interface__["data"] for each in (a, b))
    return len(set(where)) == 1 and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
