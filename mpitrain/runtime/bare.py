"""Launches by a bare call of the OpenCL loader, without the event that pyopencl makes of each: 7.6
us where that takes 9.5 (an H200's host)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import pyopencl as cl
import pyopencl._cl


@cache
def _enqueue() -> Any:
    """clEnqueueNDRangeKernel of the loader that pyopencl is linked to; None if it is not to be
    had."""
    try:
        function = ctypes.CDLL(pyopencl._cl.__file__).clEnqueueNDRangeKernel
    except (OSError, AttributeError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_uint
    function.argtypes = [
        pointer, pointer, number, pointer, pointer, pointer, number, pointer, pointer
    ]  # fmt: skip
    function.restype = ctypes.c_int32
    return function


class Bare:
    """A kernel with its arguments and sizes."""

    def __init__(
        self, kernel: cl.Kernel, size: tuple[int, ...], local: tuple[int, ...] | None
    ) -> None:
        sizes = ctypes.c_size_t * len(size)
        group = None if local is None else sizes(*local)
        self._function = _enqueue()
        self._arguments = kernel.int_ptr, len(size), None, sizes(*size), group, 0, None, None

    def __call__(self, queue: cl.CommandQueue) -> bool:
        """Queue it. Returns whether that worked; if not, pyopencl's call does, or says why."""
        function = self._function
        return function is not None and function(queue.int_ptr, *self._arguments) == 0


class Unmarked:
    """Stands for the event of a command that was queued so."""
