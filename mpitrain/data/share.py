"""Divide a batch between ranks: the number of images in, one part for each rank out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

from mpitrain.job.errors import UserError


def parts(
    count: int, size: int, speeds: Sequence[float] | None = None, piece: int = 1
) -> list[slice]:
    """One slice for each rank, in rank order: together they are 0 .. count - 1, and none is empty.

    Without speeds their lengths differ by at most 1, and the longer ones come first. With speeds
    (positive, images a second of each rank) lengths are in proportion to them, rounded by the
    method of the largest remainder. piece: so many images stay together, but for fewer at the end;
    lengths are then those of pieces. Raises UserError if there are fewer pieces than ranks.
    """
    pieces = -(-count // piece)
    if pieces < size:
        what = "image" if piece == 1 else f"piece of {piece} images"
        raise UserError(f"{count} images for {size} ranks; expected at least one {what} a rank")
    lengths = proportional(pieces, [1.0] * size if speeds is None else list(speeds), size)
    stops = [0, *(min(piece * stop, count) for stop in accumulate(lengths))]
    return [slice(start, stop) for start, stop in pairwise(stops)]


def proportional(count: int, speeds: list[float], size: int) -> list[int]:
    """Lengths of at least 1 in proportion to the speeds, whose sum is `count`."""
    if len(speeds) != size or not all(math.isfinite(speed) and speed > 0 for speed in speeds):
        raise ValueError(f"speeds {speeds}: expected {size} positive numbers")
    exact = [Fraction(speed) for speed in speeds]  # so that lengths add up to count
    whole = sum(exact)
    quotas = [count * speed / whole for speed in exact]
    lengths = [int(quota) for quota in quotas]
    by_remainder = sorted(range(size), key=lambda rank: lengths[rank] - quotas[rank])
    for rank in by_remainder[: count - sum(lengths)]:
        lengths[rank] += 1
    while 0 in lengths:  # every rank gets an image: from the one that is most above its quota
        giver = max(range(size), key=lambda rank: (lengths[rank] > 1, lengths[rank] - quotas[rank]))
        lengths[giver] -= 1
        lengths[lengths.index(0)] += 1
    return lengths
