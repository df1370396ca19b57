"""Augment training images: shift them at random, and mirror them left to right at random.

The random numbers depend only on (seed, step, place in the batch). So the images of a step are the
same for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.dataset import Images, Shape
from mpitrain.job.errors import UserError

WAYS = ("crop", "flip", "resized", "jitter")
"""`resized` and `jitter` are in view.py: each image is looked at so as it is read."""
STREAM = 0x6175676D656E74
"""Makes these random numbers independent of others from the same seed."""


@dataclass(frozen=True)
class Draws:
    """How far each of k images is shifted, and whether it is mirrored."""

    down: NDArray[np.int64]
    """(k,): rows, from -H // 8 to H // 8. Pixels that come in from outside are 0."""
    right: NDArray[np.int64]
    """(k,): columns, from -W // 8 to W // 8."""
    flip: NDArray[np.bool_]
    """(k,): whether left and right are swapped."""


def parse(text: str) -> frozenset[str]:
    """Ways with commas between, such as `crop,flip`, as a set; "" as an empty one. Raises UserError
    for others, and for two that both choose a part of an image."""
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    if unknown := sorted(words - set(WAYS)):
        raise UserError(f"augmentation {unknown[0]!r}; expected {', '.join(WAYS)}")
    if words >= {"crop", "resized"}:
        raise UserError("augmentation crop and resized; expected one of them")
    return words


def draws(positions: NDArray[np.int64], step: int, seed: int, shape: Shape) -> Draws:
    """The draws for these places (k,) in the batch of a step. shape: of an image, (C, H, W)."""
    positions = np.asarray(positions, np.int64)
    words = np.random.PCG64((STREAM, seed, step)).random_raw(int(positions.max(initial=-1)) + 1)[
        positions
    ]
    return Draws(
        shift(words, 0, shape[1] // 8),
        shift(words, 20, shape[2] // 8),
        (words >> np.uint64(63)).astype(np.bool_),
    )


def augment(images: Images, drawn: Draws, ways: frozenset[str]) -> Images:
    """Images (k, C, H, W), shifted if ways has `crop`, and mirrored if it has `flip`."""
    height, width = images.shape[2:]
    out = np.zeros_like(images) if "crop" in ways else images.copy()
    if "crop" in ways:
        for image, moved, down, right in zip(
            images, out, drawn.down.tolist(), drawn.right.tolist(), strict=True
        ):
            rows, columns = (
                slice(max(down, 0), height + min(down, 0)),
                slice(max(right, 0), width + min(right, 0)),
            )
            from_rows = slice(max(-down, 0), height + min(-down, 0))
            from_columns = slice(max(-right, 0), width + min(-right, 0))
            moved[:, rows, columns] = image[:, from_rows, from_columns]
    if "flip" in ways:
        out[drawn.flip] = out[drawn.flip, :, :, ::-1]
    return out


def shift(words: NDArray[np.uint64], bit: int, most: int) -> NDArray[np.int64]:
    """Evenly distributed whole numbers from -most to most, from 20 bits of each word."""
    bits = (words >> np.uint64(bit)).astype(np.int64) & 0xFFFFF
    moved: NDArray[np.int64] = (bits * (2 * most + 1) >> 20) - most
    return moved
