"""How images lie in a device's memory: in blocks of channels that are side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mpitrain.job.cut import parts

Shape = tuple[int, ...]
"""One image's shape: (C, H, W), or (features,) after a flatten. The batch size N stands before it
in arrays."""


@dataclass(frozen=True)
class Format:
    """Images (N, C/c, H, W, c) with c = `block`; c = 1 is (N, C, H, W).

    Channels that fill up the last block are zeros, in values and in gradients; every layer keeps
    them so. Rows of features (after a flatten) lie as they are.
    """

    block: int = 1
    """Channels side by side: a vector of them suits CPUs, a line of 128 bytes GPUs."""
    few: int = 0
    """Values of up to so many channels (images, mostly) are in blocks of just that many: filling
    up a wide block costs more."""

    def block_of(self, channels: int) -> int:
        """Channels side by side in a value of `channels`."""
        return self.few if channels <= self.few else self.block

    def stored(self, shape: Shape) -> Shape:
        """The shape in memory of one image's value (C, H, W), or of a row."""
        if len(shape) != 3 or self.block == 1:
            return shape
        block = self.block_of(shape[0])
        return (parts(shape[0], block), *shape[1:], block)

    def stored_memory(self, shape: Shape) -> Shape:
        """The same for a layer's memory: (N, C, H, W) is one of images."""
        return (shape[0], *self.stored(shape[1:])) if len(shape) == 4 else shape

    def stored_size(self, shape: Shape) -> int:
        """Values of one image's value in memory."""
        return math.prod(self.stored(shape))


PLANES = Format()
"""Channel after channel, as NumPy and image files have them."""
