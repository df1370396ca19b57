"""Where buffers lie in a GPU's memory, for kernels that take that number instead of the buffer.

NVIDIA's driver looks after each buffer and sub-buffer that a kernel is given. Where hundreds of
sub-buffers of one buffer overlap, as those of scratch do, that takes longer than many a kernel
(docs/decisions.md). It knows nothing of numbers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pyopencl as cl

from mpitrain.job.errors import RunError
from mpitrain.runtime.array import ALIGNMENT

if TYPE_CHECKING:
    from mpitrain.runtime.device import Device

PROBE = 0x0123456789ABCDEF
"""A number that nothing else leaves behind."""
LAST = ALIGNMENT // 8
"""Where a part of an array of 8-byte numbers may begin."""


class Addresses:
    """Those of one device's buffers."""

    def __init__(self, device: Device) -> None:
        """device: one that does not take addresses yet."""
        self._kernel = cl.Kernel(device.program("address").built(), "address")
        self._queue = cl.CommandQueue(device.context)
        self._found = cl.Buffer(device.context, cl.mem_flags.READ_WRITE, 8)
        self._lock = threading.Lock()

    def of(self, buffer: cl.Buffer) -> int:
        """The address of its first byte, as long as it lives. Waits for nothing that is queued;
        for any thread."""
        found = np.zeros(1, np.uint64)
        with self._lock:
            self._kernel.set_args(self._found, buffer)
            cl.enqueue_nd_range_kernel(self._queue, self._kernel, (1,), None)
            cl.enqueue_copy(self._queue, found, self._found, is_blocking=True)
        return int(found[0])


def offer(device: Device) -> str | None:
    """Have a device's kernels take addresses, if they turn out to be right there; else what is
    wrong with them. Before any other program is built."""
    try:
        device.addresses = Addresses(device)
        with device.scope():
            places = device.zeros((LAST + 1,), np.uint64)
            program = device.program("address", BY_ADDRESS=1)  # which tells it from the one above
            program.address(1, places.part(LAST, LAST + 1), np.uint64(PROBE))
            *before, found = places.download().tolist()
    except (RunError, cl.Error) as error:
        wrong = str(error)
    else:
        if found == PROBE and not any(before):
            return None
        wrong = f"expected {PROBE:x} in the last place alone, found {found:x} and {sum(before):x}"
    device.addresses = None
    return wrong
