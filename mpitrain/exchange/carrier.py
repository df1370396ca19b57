"""How a codec's records get from rank to rank: by messages (by_message.py), or by memory that the
ranks of a host share (by_memory.py). What becomes of them, mean.py and deltas.py say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mpitrain.exchange.codec_protocol import Bounds, V
from mpitrain.mpi.hops import Hops

Cut: TypeAlias = tuple[int, int]
"""Blocks [start, stop) of a vector."""
Records: TypeAlias = tuple[V, int]
"""Bytes on the device, and where among them records begin."""


@dataclass(frozen=True)
class Place:
    """Which bucket of which step something belongs to."""

    step: int
    bucket: int


class Carrier(Protocol[V]):
    """Carries the records of one vector at a time. All ranks call the same of its methods."""

    rank: int
    size: int

    def room(self, count: int) -> V:
        """Where the device puts `count` records that are to be carried next."""

    def parts(
        self, codes: V, gives: Sequence[Cut], wants: Cut, length: int, place: Place
    ) -> Hops[tuple[Sequence[Records[V]], Bounds]]:
        """Give each rank its cut of a vector of `length` values, and get a cut of everybody's.

        Returns that cut by sender, this rank's own among them, and for each block the sum of their
        bounds. An empty cut is not carried.
        """

    def means(
        self,
        codes: V,
        cuts: Sequence[Cut],
        to_all: bool,
        bounds: Bounds,
        length: int,
        place: Place,
    ) -> Hops[tuple[Sequence[Records[V]], float]]:
        """Give this rank's cut to all ranks, or to rank 0 alone.

        bounds: for each of its blocks, what is added to that of its code. Returns all cuts by
        sender, this rank's own among them, and the largest sum of both; on ranks that get none,
        nothing and 0.
        """

    def deltas(self, codes: V | None, length: int, place: Place) -> Hops[tuple[Records[V], bool]]:
        """Give rank 0's codes of a vector of `length` values to all; the others pass None.

        Returns them, and whether every block is finite.
        """
