"""Divide the residuals that old ranks left (what coding left out) among any number of new ranks.

A sender's residual is part of a sum over ranks, so any rank may take it over. An owner's residual
is part of a mean, and belongs to the values whose mean that rank makes. Where no rank owns values
any more (two ranks swap whole vectors), it is multiplied by the number of images in a batch and
added to a sender's residual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec_protocol import Floats
from mpitrain.exchange.mean import own_values

Read: TypeAlias = Callable[[str, int, int, int], Floats]
"""read(name, rank, start, stop): values [start, stop) of an old rank's residual.

name: "sender", "owner", or one that a strategy gave it. No values are returned if the residual has
another length now."""


class Residuals:
    """The residuals of `before` old ranks.

    A place is the index of a value in all coded buckets, one after the other in the order of
    sending.
    """

    def __init__(
        self, read: Read, buckets: Sequence[Bucket], before: int, owned: bool, images: int
    ) -> None:
        """buckets: the network's, in the order of sending. images: in a batch.

        owned: whether old ranks owned parts of the mean.
        """
        self.read, self.before, self._images = read, before, images
        self._lengths = [bucket.size for bucket in buckets if bucket.coded]
        self._old = [places(self._lengths, rank, before) if owned else [] for rank in range(before)]

    def sender(self, rank: int, size: int, start: int, stop: int, owners: bool) -> Floats:
        """Places [start, stop) of the sender's residual for one of `size` new ranks.

        owners: whether new ranks own parts of the mean.
        """
        total = np.zeros(stop - start, np.float32)
        for old in range(rank, self.before, size):
            total += self.read("sender", old, start, stop)
        if rank == 0 and not owners:
            total += self._of_owners(start, stop) * np.float32(self._images)
        return total

    def owner(self, rank: int, size: int) -> Floats:
        """The owner's residual for one of `size` new ranks: of the values that it owns."""
        parts = [self._of_owners(start, stop) for start, stop in places(self._lengths, rank, size)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _of_owners(self, start: int, stop: int) -> Floats:
        """Places [start, stop) of the old owners' residuals."""
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
    sender: Floats, owner: Floats, lengths: Sequence[int], rank: int, size: int, images: int
) -> Floats:
    """Join both residuals of one of `size` ranks into a sender's residual.

    This is for a change of ranks, after which other ranks own the values. lengths: of the coded
    buckets. images: in a batch.
    """
    whole: Floats = sender.copy()
    at = 0
    for start, stop in places(lengths, rank, size) if owner.size else []:
        whole[start:stop] += owner[at : at + stop - start] * np.float32(images)
        at += stop - start
    return whole


def places(lengths: Sequence[int], rank: int, size: int) -> list[tuple[int, int]]:
    """Ranges of places that one of `size` ranks owns. lengths: of the coded buckets."""
    found, at = [], 0
    for length in lengths:
        start, stop = own_values(length, rank, size)
        if stop > start:
            found.append((at + start, at + stop))
        at += length
    return found
