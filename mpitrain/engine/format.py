"""How images lie in a device's memory: in blocks of channels that are side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.cut import parts

Shape = tuple[int, ...]
"""One image's shape: (C, H, W), or (features,) after a flatten. The batch size N stands before it
in arrays."""


@dataclass(frozen=True)
class Numbers:
    """How kernels take the numbers of a value."""

    dtype: np.dtype[np.generic]
    wide: int | None = None
    """Numbers that a work-item of a GPU takes at once, where it is not the device's vector."""
    definitions: Mapping[str, int] = field(default_factory=dict)
    """For kernels/values.h."""


FLOAT32 = Numbers(np.dtype(np.float32))
BFLOAT16 = Numbers(np.dtype(np.uint16), 8, {"BFLOAT16": 1, "WIDTH": 8})
"""The upper halves of float32, which NumPy sees as uint16; 16 bytes at once."""


@dataclass(frozen=True)
class Format:
    """Images (N, C/c, H, W, c) with c = `block`; c = 1 is (N, C, H, W).

    Channels that fill up the last block are zeros, in values and in gradients; every layer keeps
    them so. Rows of features (after a flatten) lie as they are, and are float32.
    """

    block: int = 1
    """Channels side by side: a vector of them suits CPUs, a line of 128 bytes GPUs."""
    few: int = 0
    """Values of up to so many channels (images, mostly) are in blocks of just that many: filling
    up a wide block costs more."""
    images: Numbers = FLOAT32
    """Of images, except those of few channels, which are float32."""

    def block_of(self, channels: int) -> int:
        """Channels side by side in a value of `channels`."""
        return self.few if channels <= self.few else self.block

    def stored(self, shape: Shape) -> Shape:
        """The shape in memory of one image's value (C, H, W), or of a row."""
        if len(shape) != 3 or self.block == 1:
            return shape
        block = self.block_of(shape[0])
        return (parts(shape[0], block), *shape[1:], block)

    def numbers(self, shape: Shape) -> Numbers:
        """Of a value of this shape."""
        return self.images if len(shape) == 3 and shape[0] > self.few else FLOAT32

    def stored_memory(self, shape: Shape) -> Shape:
        """The same for a layer's memory: (N, C, H, W) is one of images."""
        return (shape[0], *self.stored(shape[1:])) if len(shape) == 4 else shape

    def stored_size(self, shape: Shape) -> int:
        """Values of one image's value in memory."""
        return math.prod(self.stored(shape))


PLANES = Format()
"""Channel after channel, as NumPy and image files have them."""


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each, ties to even; a NaN stays one."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 that each is the upper half of."""
    return (halves.astype(np.uint32) << 16).view(np.float32)
