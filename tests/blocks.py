"""Images in the layout of a device, and back, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.format import Format


def to_blocks(images: NDArray[Any], fmt: Format) -> NDArray[Any]:
    """(N, C, H, W) as (N, C/c, H, W, c), with zeros in the channels that fill up; anything
    else as it is."""
    if images.ndim != 4 or fmt.block == 1:
        return images
    n, c, h, w = images.shape
    block = fmt.block_of(c)
    whole = np.zeros((n, -(-c // block) * block, h, w), images.dtype)
    whole[:, :c] = images
    return np.ascontiguousarray(whole.reshape(n, -1, block, h, w).transpose(0, 1, 3, 4, 2))


def from_blocks(values: NDArray[Any], channels: int, zeros: bool = True) -> NDArray[Any]:
    """The way back for an array of five axes; the channels that fill up must be `zeros`. Others as
    they are."""
    if values.ndim != 5:
        return values
    n, _, h, w, _ = values.shape
    whole = values.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)
    assert not (zeros and whole[:, channels:].any()), "channels that fill up a block are not zero"
    return np.ascontiguousarray(whole[:, :channels])
