"""How images lie in a device's memory: in blocks of c channels, (N, C/c, H, W, c).

c = 1 is (N, C, H, W). Channels that fill up the last block are zeros, in values and in gradients;
every layer keeps them so. Rows of features (after a flatten) lie as they are. Numbers are float32,
or in blocks of 64 channels, which a GPU has under `--precision bf16`, bfloat16: a block of either
is a line of 128 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mpitrain.layers.layer import Shape, size
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Program

FEW = 4
"""Up to so many channels (images, mostly) are in blocks of four on devices with wide blocks:
filling up eight times as many costs more."""

WIDEST = 16
"""Channels of a CPU's blocks at most: those have no second, narrower form."""

BFLOAT16_BLOCK = 64
"""Channels of a block of bfloat16, the upper half of a float32; NumPy sees them as uint16."""


@dataclass(frozen=True)
class Numbers:
    """How kernels take the numbers of a value."""

    dtype: np.dtype[np.generic]
    wide: int
    """Numbers that a work-item takes at once."""
    definitions: dict[str, int] = field(default_factory=dict)
    """For kernels/values.h."""


def block_of(channels: int, block: int) -> int:
    """Channels that lie side by side in a value of `channels`, on a device with blocks of
    `block`."""
    return FEW if block > WIDEST and channels <= FEW else block


def stored(shape: Shape, block: int) -> Shape:
    """The shape in memory of one image's value (C, H, W), or of a row, with blocks of that many
    channels."""
    if len(shape) != 3 or block == 1:
        return shape
    block = block_of(shape[0], block)
    return (-(-shape[0] // block), *shape[1:], block)


def stored_memory(shape: Shape, block: int) -> Shape:
    """The same for a layer's memory: (N, C, H, W) is one of images."""
    return (shape[0], *stored(shape[1:], block)) if len(shape) == 4 else shape


def stored_size(shape: Shape, block: int) -> int:
    """Values of one image's value in memory."""
    return size(stored(shape, block))


def type_of(shape: Shape, block: int) -> np.dtype[np.generic]:
    """The type in memory of a value (C, H, W), or of a row, with blocks of that many channels."""
    half = len(shape) == 3 and block_of(shape[0], block) == BFLOAT16_BLOCK
    return np.dtype(np.uint16 if half else np.float32)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each, ties to even; a NaN stays one."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 that each is the upper half of."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def numbers_of(device: Device, shape: Shape) -> Numbers:
    """How kernels take the numbers of a value of this shape on a device."""
    dtype = type_of(shape, device.block)
    if dtype == np.float32:
        return Numbers(dtype, device.wide)
    return Numbers(dtype, 8, {"BFLOAT16": 1, "WIDTH": 8})


class Planes:
    """Copies between blocks and planes (n, C, pixels), on a device whose blocks are of more than
    one channel."""

    def __init__(self, device: Device, channels: int, pixels: int) -> None:
        self._device, self._channels, self._pixels = device, channels, pixels
        self._block = block_of(channels, device.block)
        self._numbers = numbers_of(device, (channels, 1, 1))
        self._on_cpu = device.kind == "cpu"

    def read(self, planes: Array, blocks: Array, first: int, images: int) -> None:
        """Copy images [first, first + images) of `blocks` to `planes`."""
        items, group = self._items(images)
        self._kernels().from_blocks(
            items, planes, blocks, self._channels, self._pixels, first, group=group
        )

    def write(self, blocks: Array, planes: Array, first: int, images: int) -> None:
        """Copy `planes` to images [first, first + images) of `blocks`."""
        items, group = self._items(images)
        self._kernels().to_blocks(
            items, blocks, planes, self._channels, self._pixels, first, group=group
        )

    def _kernels(self) -> Program:
        return self._device.program("blocks", BLOCK=self._block, **self._numbers.definitions)

    def _items(self, images: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(work-items, of a group): one a block of an image on CPUs; on GPUs a group moves 32
        pixels of one."""
        blocks = -(-self._channels // self._block)
        if self._on_cpu:
            return (blocks, images), (1, 1)
        return (self._pixels, 8 * blocks, images), (32, 8, 1)
