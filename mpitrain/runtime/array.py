"""An array in a device's memory: a shape, a type, and a buffer that is released when asked for, or
with its scope."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyopencl as cl
from numpy.typing import DTypeLike, NDArray

from mpitrain.runtime.pinned import LARGEST

if TYPE_CHECKING:
    from mpitrain.runtime.device import Device
    from mpitrain.runtime.program import Launch

ALIGNMENT = 512
"""Bytes at which parts of an array may start: the coarsest that an OpenCL device asks of
sub-buffers (4096 bits, NVIDIA)."""
ALIGNED = ALIGNMENT // 4
"""Float32 values to whose multiples they start."""


class Memory:
    """A buffer, with the sub-buffers made of it and the launches that were prepared with it.

    They are released in the order launches, sub-buffers, buffer, whatever order Python's garbage
    collector takes, and sub-buffers in the reverse order of their creation. OpenCL asks for
    neither, but NVIDIA's driver (580.159) crashes in clReleaseMemObject when overlapping
    sub-buffers are released in the order in which they were made; in reverse it does not.
    """

    def __init__(self, device: Device, buffer: cl.Buffer) -> None:
        self.buffer = buffer
        self.launches: set[Launch] = set()
        self._device = device
        self._parts: dict[tuple[int, int], cl.MemoryObject] = {}
        self._released = False

    def part(self, offset: int, nbytes: int) -> cl.MemoryObject:
        """The OpenCL object of a range of bytes.

        Objects of ranges that do not meet may be given to one kernel, which OpenCL does not allow
        for the whole buffer and a part of it.
        """
        if offset == 0 and nbytes == self.buffer.size:
            return self.buffer
        found = self._parts.get((offset, nbytes))
        if found is None:
            found = self._parts[offset, nbytes] = self.buffer.get_sub_region(offset, max(nbytes, 1))
        return found

    @cached_property
    def address(self) -> int:
        """Of its first byte, on a device that has addresses."""
        assert self._device.addresses, f"{self._device} has no addresses"
        return self._device.addresses.of(self.buffer)

    def release(self) -> None:
        """Give everything back. Not to be used afterwards."""
        if self._released:
            return
        self._released = True
        with contextlib.suppress(cl.Error):  # at the interpreter's end the context may have gone
            self._device.settle()
            for launch in list(self.launches):
                launch.drop()
            for part in reversed(self._parts.values()):
                part.release()
            self._parts.clear()
            self.buffer.release()

    def __del__(self) -> None:
        self.release()


class Array:
    """A dense C-ordered array on a device. Views (`part`, `reshape`, `on`) share its memory and do
    not own it."""

    def __init__(
        self,
        device: Device,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        memory: Memory,
        offset: int = 0,
        owner: bool = True,
    ) -> None:
        self.device = device
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.size = int(math.prod(shape))  # of numpy.int64, kernels would take eight bytes
        self.nbytes = self.size * self.dtype.itemsize
        self.memory = memory
        self._offset = offset
        self._owner = owner
        self._view: cl.MemoryObject | None = None

    @property
    def buffer(self) -> cl.MemoryObject:
        """The OpenCL object of just these bytes."""
        if self._view is None:
            self._view = self.memory.part(self._offset, self.nbytes)
        return self._view

    @property
    def argument(self) -> cl.MemoryObject | np.uint64:
        """What a kernel of its device takes for it."""
        if self.device.addresses is None:
            return self.buffer
        place: np.uint64 = np.uint64(self.memory.address + self._offset)
        return place

    @property
    def place(self) -> tuple[Memory, int, int]:
        """Its memory, and its first byte and number of bytes there: the same for views of the
        same bytes."""
        return self.memory, self._offset, self.nbytes

    def __repr__(self) -> str:
        return f"Array({self.shape}, {self.dtype}, {self.device.name})"

    def part(self, start: int, stop: int) -> Array:
        """Elements [start, stop) of the flattened array, as a view. `start` must fall on a multiple
        of 512 bytes."""
        offset = start * self.dtype.itemsize
        if not 0 <= start <= stop <= self.size or offset % ALIGNMENT:
            raise ValueError(
                f"part [{start}, {stop}) of {self}: must lie inside and start at a multiple of "
                f"{ALIGNMENT} bytes"
            )
        place = self._offset + offset
        return Array(self.device, (stop - start,), self.dtype, self.memory, place, owner=False)

    def reshape(self, shape: tuple[int, ...]) -> Array:
        """The first elements under another shape, as a view; the shape may be smaller than the
        array."""
        view = Array(self.device, shape, self.dtype, self.memory, self._offset, owner=False)
        if view.nbytes > self.nbytes:
            raise ValueError(f"{self} cannot be seen as {shape}: too few elements")
        return view

    def on(self, device: Device) -> Array:
        """The same memory for work on another queue of its device (`Device.beside`), as a view."""
        return Array(device, self.shape, self.dtype, self.memory, self._offset, owner=False)

    def write(self, host: NDArray[Any]) -> None:
        """Copy a host array of as many elements (fewer: the first ones) and the same type into it;
        done when it returns."""
        self._check(host)
        if host.size:
            cl.enqueue_copy(
                self.device.queue,
                self.memory.buffer,
                np.ascontiguousarray(host),
                dst_offset=self._offset,
                is_blocking=True,
            )

    def send(self, host: NDArray[Any]) -> None:
        """`write` that is only queued: the host array must stay as it is until the device has come
        to it."""
        self._check(host)
        if host.size:
            event = cl.enqueue_copy(
                self.device.queue,
                self.memory.buffer,
                host,
                dst_offset=self._offset,
                is_blocking=False,
            )
            self.device.hold(event)  # an event that holds a host array waits when it is dropped

    def _check(self, host: NDArray[Any]) -> None:
        if host.dtype != self.dtype or host.size > self.size:
            raise ValueError(f"cannot write {host.dtype}{host.shape} into {self}")

    def download(self) -> NDArray[Any]:
        """A host copy, after all work queued before."""
        host = np.empty(self.shape, self.dtype)
        if host.size:
            self._read(host)
        return host

    def _read(self, host: NDArray[Any]) -> None:
        cl.enqueue_copy(
            self.device.queue, host, self.memory.buffer, src_offset=self._offset, is_blocking=True
        )

    def copy_from(self, other: Array) -> None:
        """Queue a copy of another array of the same size in bytes (larger: its beginning)."""
        if self.nbytes > other.nbytes:
            raise ValueError(f"cannot copy {other} into {self}")
        if not self.nbytes:
            return
        size, origin, place = self.nbytes, other._offset, self._offset

        def command() -> None:
            self.device.last = cl.enqueue_copy(
                self.device.queue, self.memory.buffer, other.memory.buffer,
                byte_count=size, src_offset=origin, dst_offset=place,
            )  # fmt: skip

        self.device.queue_command(command)

    def fill(self, value: float) -> None:
        """Queue setting every element to a value."""
        if not self.nbytes:
            return
        pattern = np.array(value, self.dtype)

        def command() -> None:
            self.device.last = cl.enqueue_fill(
                self.device.queue, self.memory.buffer, pattern, self.nbytes, offset=self._offset
            )

        self.device.queue_command(command)

    @contextmanager
    def host(self, write: bool = False, read: bool = True) -> Iterator[NDArray[Any]]:
        """A host view after all work queued before: the same memory on CPUs, a copy (taken back if
        `write`) on other devices.

        read: whether the values in the array are needed. Without it the view of a device with
        memory of its own starts with arbitrary values, and what is not set stays arbitrary.
        """
        if not self.size:
            yield np.empty(self.shape, self.dtype)
            return
        if not self.device.shares_memory:
            with self._beside() as host:
                if read:
                    self._read(host)
                yield host
                if write:
                    self.write(host)
            return
        flags: Any = cl.map_flags.READ | cl.map_flags.WRITE if write else cl.map_flags.READ
        mapped, _ = cl.enqueue_map_buffer(
            self.device.queue,
            self.memory.buffer,
            flags,
            self._offset,
            self.shape,
            self.dtype,
            is_blocking=True,
        )
        try:
            yield mapped
        finally:
            mapped.base.release(self.device.queue)

    @contextmanager
    def _beside(self) -> Iterator[NDArray[Any]]:
        """Memory of the host for a copy of it, pinned if it is not much."""
        if self.nbytes > LARGEST:
            yield np.empty(self.shape, self.dtype)
            return
        with self.device.pinned.lent(self.nbytes) as lent:
            yield lent.view(self.dtype).reshape(self.shape)

    def save(self, path: Path) -> None:
        """Write it as a NumPy .npy file."""
        np.save(path, self.download())

    def release(self) -> None:
        """Give its memory back (a view gives back nothing). Not to be used afterwards."""
        if self._owner:
            self._owner = False
            self.memory.release()


def load(device: Device, path: Path) -> Array:
    """A NumPy .npy file as a new device array."""
    return device.upload(np.load(path, allow_pickle=False))
