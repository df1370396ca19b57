"""Numbers that stand for a long vector on a device, without the host reading it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.codec_protocol import blocks
from mpitrain.job.cut import parts
from mpitrain.runtime.array import Array

BLOCKS = 32
"""Blocks that a work-item of a CPU handles: 64 KiB of the vector."""


class Squares:
    """The sum of the squares of one vector, the same one each time."""

    def __init__(self, x: Array) -> None:
        """x: float32 (n,)."""
        device, count = x.device, blocks(x.size)
        chunk = BLOCKS if device.long_items else 1
        self._sums = device.zeros((max(1, count),))
        self._launch = device.program("norm").squares.prepare(
            parts(count, chunk) * device.group, self._sums, x, x.size, chunk, group=device.group
        )

    def __call__(self) -> float:
        self._launch()
        return float(self._sums.download().sum(dtype=np.float64))


def checksums(x: Array) -> NDArray[np.uint32]:
    """A number for each 512 values of a vector float32 (n,), by their bits and places; the same on
    all devices."""
    device, count = x.device, blocks(x.size)
    with device.scope():
        found = device.zeros((max(1, count),), np.uint32)
        device.program("checksum").checksums(count, found, x, x.size, group=device.group)
        return np.asarray(found.download()[:count], np.uint32)
