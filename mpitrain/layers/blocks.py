"""Copies of images between a device's blocks of channels and planes of one channel each."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import parts
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program


class Planes:
    """Copies between blocks and planes (n, C, pixels), on a device whose blocks are of more than
    one channel."""

    def __init__(self, device: Engine, channels: int, pixels: int) -> None:
        self._device, self._channels, self._pixels = device, channels, pixels
        self._block = device.format.block_of(channels)
        self._facts = device.format.numbers((channels, 1, 1)).definitions

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
        return self._device.program("blocks", BLOCK=self._block, **self._facts)

    def _items(self, images: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(work-items, of a group): one a block of an image on CPUs; on GPUs a group moves 32
        pixels of one."""
        blocks = parts(self._channels, self._block)
        if self._device.long_items:
            return (blocks, images), (1, 1)
        return (self._pixels, 8 * blocks, images), (32, 8, 1)
