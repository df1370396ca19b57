"""What coding has left out, handed on to any number of ranks: residuals of the old ranks in, a new
rank's share of them out.

A sender's residual is part of a sum over ranks: whoever takes it, the sum stays. An owner's is part
of a mean and belongs to the values that it owns; where nobody owns values any more (two ranks swap
whole vectors) it is multiplied by the batch and becomes a sender's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.mean import own_values

Vector: TypeAlias = NDArray[np.float32]
Read: TypeAlias = Callable[[str, int, int, int], Vector]
"""Values [start, stop) of a residual ("sender", "owner", or by a name that a strategy gave it) of
an old rank: read(name, rank, start, stop); none where it has another length now."""


class Residuals:
    """Residuals that `before` ranks have left. A place is that of a value in the vector of all
    coded buckets, in the order of sending."""

    def __init__(
        self, read: Read, buckets: Sequence[Bucket], before: int, owned: bool, images: int
    ) -> None:
        """buckets: of the network, in the order in which they are sent. owned: whether the old
        ranks had owners. images: in a batch."""
        self.read, self.before, self._images = read, before, images
        self._lengths = [bucket.stop - bucket.start for bucket in buckets if bucket.coded]
        self._old = [places(self._lengths, rank, before) if owned else [] for rank in range(before)]

    def sender(self, rank: int, size: int, start: int, stop: int, owners: bool) -> Vector:
        """Places [start, stop) of the residual with which a rank of `size` begins to send. owners:
        whether the new ranks have some."""
        total = np.zeros(stop - start, np.float32)
        for old in range(rank, self.before, size):
            total += self.read("sender", old, start, stop)
        if rank == 0 and not owners:
            total += self._of_owners(start, stop) * np.float32(self._images)
        return total

    def owner(self, rank: int, size: int) -> Vector:
        """The residual of the values that a rank of `size` owns."""
        parts = [self._of_owners(start, stop) for start, stop in places(self._lengths, rank, size)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _of_owners(self, start: int, stop: int) -> Vector:
        """What the old owners of the places [start, stop) have left out of their mean."""
        found = np.zeros(stop - start, np.float32)
        for old, ranges in enumerate(self._old):
            at = 0
            for first, last in ranges:
                low, high = max(start, first), min(stop, last)
                if low < high:
                    found[low - start : high - start] = self.read(
                        "owner", old, at + low - first, at + high - first
                    )
                at += last - first
        return found


def as_sender(
    sender: Vector, owner: Vector, lengths: Sequence[int], rank: int, size: int, images: int
) -> Vector:
    """Both residuals of a rank of `size` as one that it can send from, where others will own values
    than before. lengths: of the coded buckets; images: in a batch."""
    whole: Vector = sender.copy()
    at = 0
    for start, stop in places(lengths, rank, size) if owner.size else []:
        whole[start:stop] += owner[at : at + stop - start] * np.float32(images)
        at += stop - start
    return whole


def places(lengths: Sequence[int], rank: int, size: int) -> list[tuple[int, int]]:
    """Ranges that a rank of so many owns in the vector of all coded buckets, which have these
    lengths."""
    found, at = [], 0
    for length in lengths:
        start, stop = own_values(length, rank, size)
        if stop > start:
            found.append((at + start, at + stop))
        at += length
    return found
