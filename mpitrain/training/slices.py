"""Whole tensors of which each rank keeps a slice: put together piece by piece, for checkpoints and
hashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.cut import round_up
from mpitrain.layers.layer import Placement, size

PIECE = 1 << 22
"""Values of a whole tensor in a block, about."""
ALIGNED = 128
"""Rows of a block are a multiple of so many, so that blocks start where parts of an Array may."""


@dataclass(frozen=True)
class Block:
    """Some rows of a whole matrix (rows, columns): what each rank has of them."""

    shapes: tuple[tuple[int, int], ...]
    """Of each rank's part, in rank order; without values where a rank has none of these rows."""
    start: int
    """Where this rank's part begins, in its slice."""

    @property
    def sizes(self) -> list[int]:
        """Values of each rank's part."""
        return [size(shape) for shape in self.shapes]


def blocks(placement: Placement) -> Iterator[Block]:
    """The blocks of a matrix, in the order of its rows; the same ones on every rank."""
    rows, columns = placement.whole
    step = max(ALIGNED, round_up(PIECE // columns, ALIGNED))
    mine = placement.rank
    if placement.axis == 1:
        widths = [stop - start for start, stop in placement.shards]
        for first in range(0, rows, step):
            height = min(step, rows - first)
            yield Block(tuple((height, width) for width in widths), first * widths[mine])
        return
    for rank, (begin, end) in enumerate(placement.shards):
        for first in range(begin, end, step):
            height = min(step, end - first)
            shapes = [(0, columns)] * placement.size
            shapes[rank] = height, columns
            yield Block(tuple(shapes), (first - begin) * columns if rank == mine else 0)


def joined(parts: Sequence[NDArray[np.float32]], axis: int) -> NDArray[np.float32]:
    """The rows of a block from all ranks' parts."""
    return np.concatenate(parts, axis=axis)
