"""Launches by a bare call of the OpenCL loader, without the event that pyopencl makes of each: 7.6
us where that takes 9.5 (an H200's host)."""

from __future__ import annotations

import ctypes

import pyopencl as cl
import pyopencl._cl

_library = ctypes.CDLL(pyopencl._cl.__file__)  # finds what that is linked to: the same loader
_enqueue = _library.clEnqueueNDRangeKernel
_pointer = ctypes.c_void_p
_enqueue.argtypes = [
    _pointer, _pointer, ctypes.c_uint, _pointer, _pointer, _pointer, ctypes.c_uint, _pointer,
    _pointer,
]  # fmt: skip
_enqueue.restype = ctypes.c_int32


class Bare:
    """A kernel with its arguments and sizes."""

    def __init__(
        self, kernel: cl.Kernel, size: tuple[int, ...], local: tuple[int, ...] | None
    ) -> None:
        sizes = ctypes.c_size_t * len(size)
        group = None if local is None else sizes(*local)
        self._arguments = kernel.int_ptr, len(size), None, sizes(*size), group, 0, None, None

    def __call__(self, queue: cl.CommandQueue) -> bool:
        """Queue it. Returns whether that worked; if not, pyopencl's call says why."""
        return bool(_enqueue(queue.int_ptr, *self._arguments) == 0)


class Unmarked:
    """Stands for the event of a command that was queued so."""
