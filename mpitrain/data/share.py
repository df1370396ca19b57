"""Share a batch between ranks: the number of images in, one part a rank out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from mpitrain.job.errors import UserError


def parts(count: int, size: int, speeds: Sequence[float] | None = None) -> list[slice]:
    """`size` slices in rank order that are 0 .. count - 1 without gap, none of them empty.

    Without speeds their lengths differ by at most 1, the longer ones first. With speeds (images a
    second of each rank, positive) they are in proportion, rounded by the largest remainder. Raises
    UserError if count < size.
    """
    if count < size:
        raise UserError(f"{count} images for {size} ranks; expected at least one image a rank")
    lengths = proportional(count, [1.0] * size if speeds is None else list(speeds), size)
    stops = list(accumulate(lengths))
    return [slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]


def proportional(count: int, speeds: list[float], size: int) -> list[int]:
    """Whole numbers of at least 1 in proportion to the speeds, `count` in all."""
    if len(speeds) != size or not all(math.isfinite(speed) and speed > 0 for speed in speeds):
        raise ValueError(f"speeds {speeds}: expected {size} positive numbers")
    exact = [
        Fraction(speed) for speed in speeds
    ]  # so that rounding neither loses nor invents an image
    whole = sum(exact)
    quotas = [count * speed / whole for speed in exact]
    lengths = [int(quota) for quota in quotas]
    by_remainder = sorted(range(size), key=lambda rank: lengths[rank] - quotas[rank])
    for rank in by_remainder[: count - sum(lengths)]:
        lengths[rank] += 1
    while (
        0 in lengths
    ):  # a rank with nothing to do would still wait for the others: the best served one gives
        giver = max(range(size), key=lambda rank: (lengths[rank] > 1, lengths[rank] - quotas[rank]))
        lengths[giver] -= 1
        lengths[lengths.index(0)] += 1
    return lengths
