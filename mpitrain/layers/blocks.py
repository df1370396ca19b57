"""How images lie in a device's memory: in blocks of c channels, (N, C/c, H, W, c); c = 1 is (N, C,
H, W).

Channels that fill up the last block are zeros, in values and in gradients; every layer keeps them
so. Rows of features (after a flatten) lie as they are.
"""

from __future__ import annotations

from mpitrain.layers.layer import Shape, size
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

FEW = 4
"""Up to so many channels (images, mostly) are in blocks of four on devices with wide blocks:
filling up eight times as many costs more."""

WIDEST = 16
"""Channels of a CPU's blocks at most: those have no second, narrower form."""


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


class Planes:
    """Copies between blocks and planes (n, C, pixels), on a device whose blocks are of more than
    one channel."""

    def __init__(self, device: Device, channels: int, pixels: int) -> None:
        self._device, self._channels, self._pixels = device, channels, pixels
        self._block = block_of(channels, device.block)
        self._on_cpu = device.kind == "cpu"

    def read(self, planes: Array, blocks: Array, first: int, images: int) -> None:
        """Copy images [first, first + images) of `blocks` to `planes`."""
        items, group = self._items(images)
        self._device.program("blocks", BLOCK=self._block).from_blocks(
            items, planes, blocks, self._channels, self._pixels, first, group=group
        )

    def write(self, blocks: Array, planes: Array, first: int, images: int) -> None:
        """Copy `planes` to images [first, first + images) of `blocks`."""
        items, group = self._items(images)
        self._device.program("blocks", BLOCK=self._block).to_blocks(
            items, blocks, planes, self._channels, self._pixels, first, group=group
        )

    def _items(self, images: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(work-items, of a group): one a block of an image on CPUs; on GPUs a group moves 32
        pixels of one."""
        blocks = -(-self._channels // self._block)
        if self._on_cpu:
            return (blocks, images), (1, 1)
        return (self._pixels, 8 * blocks, images), (32, 8, 1)
