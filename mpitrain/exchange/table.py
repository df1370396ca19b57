"""The dynamic tree code: 128 magnitudes in [0, 1], dense near 1 and near each smaller decade, and how to find the nearest.

Source: T. Dettmers, 8-Bit Approximations for Parallelism in Deep Learning (arXiv 1511.04561), with each decade split evenly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 512
"""Values that share a scale; blocks are cut on the flat vector's index."""
BIAS, LOWEST, HIGHEST, BAD = 101, -100, 126, 255
"""A scale byte is the exponent + BIAS. LOWEST keeps denormal arithmetic out; BAD marks a block that is not finite."""
HALF_STEP = 0.9 / 64 / 2
"""Largest distance from a magnitude in [0, 1] to the nearest code: half a step of the first decade."""


def _values() -> NDArray[np.float32]:
    found = [0.0, 1.0]
    for zeros in range(6):
        count = 2 ** (6 - zeros)
        found += [10.0**-zeros * (0.1 + 0.9 * (k + 0.5) / count) for k in range(count)]
    return np.sort(np.array(found)).astype(np.float32)


VALUES = _values()
"""Magnitude of each code 0 .. 127; code 0 is zero and code 127 is 1. Bit 7 of a byte is the sign."""
MIDPOINTS = np.append(
    ((VALUES[1:].astype(np.float64) + VALUES[:-1]) / 2).astype(np.float32), np.float32(np.inf)
)
"""Above MIDPOINTS[code] the next code is nearer."""
STARTS = np.searchsorted(
    MIDPOINTS, (np.arange(0x3F81, dtype=np.uint32) << 16).view(np.float32), side="left"
).astype(np.uint8)
"""Code of the smallest magnitude with these upper 16 bits. No two midpoints share them, so one comparison finishes the search."""
