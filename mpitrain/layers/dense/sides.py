"""How the rows of one side of a split dense layer, its inputs or its outputs, travel between ranks.

Every rank has the rows of its own images, and multiplies rows of the whole batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.cut import shards

Floats: TypeAlias = NDArray[np.float32]


class Peers(Protocol):
    """What this module needs of the ranks: mpi's Activations, or exchange's CodedRows."""

    rank: int
    size: int

    def swap(self, outgoing: Sequence[Floats], incoming: Sequence[Floats]) -> None:
        """Send outgoing[r] to each rank r and fill incoming[r] with what it sends, this rank's own
        too. Collective."""


class Side(ABC):
    """Rows of `width` values of this rank's images, and rows of `here` values of all images that
    this rank multiplies. Every method is collective."""

    here: int

    def __init__(self, peers: Peers, width: int) -> None:
        self._peers, self.width = peers, width

    @abstractmethod
    def spread(self, all_rows: Floats, own: Floats, everyone: Sequence[int]) -> None:
        """Fill all_rows (sum of everyone, here) from every rank's own (n, width).

        everyone: the number of images of each rank; n is this rank's.
        """

    @abstractmethod
    def collect(self, own: Floats, all_rows: Floats, everyone: Sequence[int]) -> None:
        """The way back: fill every rank's own (n, width) from all ranks' all_rows."""


class Cut(Side):
    """Each rank multiplies its shard of the columns, of all images: `collect` joins the shards."""

    def __init__(self, peers: Peers, width: int) -> None:
        super().__init__(peers, width)
        self._shards = shards(width, peers.size)
        start, stop = self._shards[peers.rank]
        self.here = stop - start

    def spread(self, all_rows: Floats, own: Floats, everyone: Sequence[int]) -> None:
        shares = [np.ascontiguousarray(own[:, start:stop]) for start, stop in self._shards]
        self._peers.swap(shares, _rows(all_rows, everyone))

    def collect(self, own: Floats, all_rows: Floats, everyone: Sequence[int]) -> None:
        shares = [np.empty((len(own), stop - start), np.float32) for start, stop in self._shards]
        self._peers.swap(_rows(all_rows, everyone), shares)
        for share, (start, stop) in zip(shares, self._shards, strict=True):
            own[:, start:stop] = share


class Whole(Side):
    """Each rank multiplies whole rows of all images: `collect` adds up what ranks have computed for
    an image, in rank order."""

    def __init__(self, peers: Peers, width: int) -> None:
        super().__init__(peers, width)
        self.here = width

    def spread(self, all_rows: Floats, own: Floats, everyone: Sequence[int]) -> None:
        self._peers.swap([np.ascontiguousarray(own)] * self._peers.size, _rows(all_rows, everyone))

    def collect(self, own: Floats, all_rows: Floats, everyone: Sequence[int]) -> None:
        terms = [np.empty_like(own) for _ in range(self._peers.size)]
        self._peers.swap(_rows(all_rows, everyone), terms)
        np.add(terms[0], terms[1], out=own)
        for term in terms[2:]:
            np.add(own, term, out=own)


def _rows(all_rows: Floats, everyone: Sequence[int]) -> list[Floats]:
    """The rows of each rank's images."""
    stops = list(accumulate(everyone))
    return [all_rows[stop - count : stop] for stop, count in zip(stops, everyone, strict=True)]
