"""Change training images a little: shifted crops and mirror images, drawn per place in the global
batch.

The draws depend on (seed, step, place) alone, so the images of a step are the same for any number
of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.dataset import Images, Shape
from mpitrain.job.errors import UserError

WAYS = ("crop", "flip")
STREAM = 0x6175676D656E74
"""Keeps these draws apart from the other draws of a seed."""


@dataclass(frozen=True)
class Draws:
    """One row an image: how far it moves, and whether it is mirrored."""

    down: NDArray[np.int64]
    """Rows, (k,), from -H // 8 to H // 8; what moves in is 0."""
    right: NDArray[np.int64]
    """Columns, (k,), from -W // 8 to W // 8."""
    flip: NDArray[np.bool_]
    """Left for right, (k,)."""


def parse(text: str) -> frozenset[str]:
    """`crop`, `flip` or `crop,flip` as a set, nothing as an empty one; UserError for other
    words."""
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    if unknown := sorted(words - set(WAYS)):
        raise UserError(f"augmentation {unknown[0]!r}; expected {', '.join(WAYS)}")
    return words


def draws(positions: NDArray[np.int64], step: int, seed: int, shape: Shape) -> Draws:
    """The draws of these places (k,) in the global batch of a step, for images (C, H, W)."""
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
    """Images (k, C, H, W) of the same shape and type: moved if ways has `crop`, mirrored if it has
    `flip`."""
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
    """Whole numbers from -most to most, evenly, of 20 bits of each word."""
    bits = (words >> np.uint64(bit)).astype(np.int64) & 0xFFFFF
    moved: NDArray[np.int64] = (bits * (2 * most + 1) >> 20) - most
    return moved
