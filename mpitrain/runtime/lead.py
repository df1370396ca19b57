"""How far a host may be ahead of its device.

NVIDIA's driver (580.159) gives a GPU the kernels of all queues of a context in the order in which
the host queued them. So what another thread queues waits for all that was queued before it, on
whatever queue: of VGG16's backward pass, all of which the host queues in a fifth of the time that
it takes, the gradients that came first were encoded when it had ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mpitrain.runtime.device import Device, Mark

PIECE = 1 / 24
"""Of the whole work: how much is queued between two looks at how far the device is."""
LEAST = 4e9
"""FLOPs of a piece at least, some 0.1 ms of a GPU in float32: a look must cost little beside it."""
PIECES_AHEAD = 2
"""Such pieces that are queued while the device computes another."""


class Lead:
    """Keeps the host near a device whose work is queued bit by bit, while somebody needs that."""

    def __init__(self, device: Device, whole: float, needed: Callable[[], bool]) -> None:
        """whole: FLOPs of all the work. needed: whether somebody else queues work now."""
        self._device, self._piece, self._needed = device, max(LEAST, whole * PIECE), needed
        self._marks: deque[Mark] = deque()
        self._work = 0.0

    def queued(self, flops: float) -> None:
        """So much work was queued: waits while the host is too far ahead."""
        self._work += flops
        if self._work < self._piece:
            return
        self._work = 0.0
        if not self._needed():
            self._marks.clear()
            return
        self._marks.append(self._device.mark())
        if len(self._marks) > PIECES_AHEAD:
            self._marks.popleft().wait()
