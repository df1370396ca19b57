"""How images lie in a device's memory: in blocks of channels that are side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.cut import parts

Shape = tuple[int, ...]
"""One image's shape: (C, H, W), or (features,) after a flatten. The batch size N stands before it
in arrays."""


Values: TypeAlias = NDArray[Any]


def _same(values: Values) -> Values:
    return values


@dataclass(frozen=True)
class Numbers:
    """How kernels take the numbers of a value."""

    dtype: np.dtype[np.generic]
    wide: int | None = None
    """Numbers that a work-item of a GPU takes at once, where it is not the device's vector."""
    definitions: Mapping[str, int] = field(default_factory=dict)
    """For kernels/values.h."""
    rows: str = ""
    """The precision whose tensor cores read lines of them as they lie
    (layers/conv/tensor_rows.py); empty: none."""
    pack: Callable[[Values], Values] = _same
    """Float32 (..., block) as it lies in memory, rounded."""
    unpack: Callable[[Values], Values] = _same
    """The way back."""


def to_bfloat16(values: Values) -> Values:
    """The nearest bfloat16 of each, ties to even, as uint16; a NaN stays one."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(halves: Values) -> Values:
    """The float32 that each is the upper half of."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def to_tfloat32(values: Values) -> Values:
    """The nearest number with 10 bits of mantissa, ties away from zero; a NaN stays one."""
    bits = values.view(np.uint32)
    rounded: Values = (bits + np.uint32(0x1000) & np.uint32(0xFFFFE000)).view(np.float32)
    rounded[np.isnan(values)] = np.nan
    return rounded


def to_pairs(values: Values) -> Values:
    """Two bfloat16 for each, high + low, as uint32 (..., block): a line's high parts first."""
    high = to_bfloat16(values)
    with np.errstate(invalid="ignore"):  # of an infinity a NaN is left over
        low = to_bfloat16(values - from_bfloat16(high))
    return np.ascontiguousarray(np.concatenate([high, low], -1)).view(np.uint32)


def from_pairs(pairs: Values) -> Values:
    """Their sums; what bfloat16 cannot hold has become a NaN."""
    high, low = np.split(from_bfloat16(np.ascontiguousarray(pairs).view(np.uint16)), 2, -1)
    with np.errstate(invalid="ignore"):
        total: Values = high + low
    return total


FLOAT32 = Numbers(np.dtype(np.float32))
BFLOAT16 = Numbers(
    np.dtype(np.uint16), 8, {"BFLOAT16": 1, "WIDTH": 8}, "bf16", to_bfloat16, from_bfloat16
)
"""The upper halves of float32, which NumPy sees as uint16; 16 bytes at once."""
TFLOAT32 = Numbers(FLOAT32.dtype, None, {"TFLOAT32": 1}, "tf32", to_tfloat32)
"""Float32 with as many bits of mantissa as TF32 has."""
PAIRS = Numbers(np.dtype(np.uint32), 8, {"PAIRS": 1, "WIDTH": 8}, "high", to_pairs, from_pairs)
"""Float32 as the sum of two bfloat16, which has 16 bits of mantissa; NumPy sees 32 a number."""


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
