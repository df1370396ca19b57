"""How images lie in a device's memory: in blocks of c channels, (N, C/c, H, W, c); c = 1 is (N, C, H, W).

Channels that fill up the last block are zeros, in values and in gradients; every layer keeps them so. Rows of features (after a
flatten) lie as they are.
"""

from __future__ import annotations

from mpitrain.layers.layer import Shape, size
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


def stored(shape: Shape, block: int) -> Shape:
    """The shape in memory of one image's value (C, H, W), or of a row, with blocks of that many channels."""
    if len(shape) != 3 or block == 1:
        return shape
    return (-(-shape[0] // block), *shape[1:], block)


def stored_memory(shape: Shape, block: int) -> Shape:
    """The same for a layer's memory: (N, C, H, W) is one of images."""
    return (shape[0], *stored(shape[1:], block)) if len(shape) == 4 else shape


def stored_size(shape: Shape, block: int) -> int:
    """Values of one image's value in memory."""
    return size(stored(shape, block))


class Planes:
    """Copies between blocks and planes (n, C, pixels), on a device whose blocks are of more than one channel."""

    def __init__(self, device: Device, channels: int, pixels: int) -> None:
        self._device, self._channels, self._pixels = device, channels, pixels

    def read(self, planes: Array, blocks: Array, first: int, images: int) -> None:
        """Copy images [first, first + images) of `blocks` to `planes`."""
        self._device.program("blocks").from_blocks(
            self._items(images), planes, blocks, self._channels, self._pixels, first, group=(1, 1)
        )

    def write(self, blocks: Array, planes: Array, first: int, images: int) -> None:
        """Copy `planes` to images [first, first + images) of `blocks`."""
        self._device.program("blocks").to_blocks(
            self._items(images), blocks, planes, self._channels, self._pixels, first, group=(1, 1)
        )

    def _items(self, images: int) -> tuple[int, int]:
        return -(-self._channels // self._device.block), images
