"""The exchange of ranks that share a host: sums in rank order in memory that all of them see, exact
and without messages.

Each rank adds up one shard: it copies the others' shards of its vector into its own slice of the
shared memory, adds up its own shard of all vectors, and puts the mean into the gap in its slice.
Whoever needs the mean copies it out. Slots take turns, so that one bucket is copied while another
is added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.codec_numpy import V
from mpitrain.job.cut import round_up, shards
from mpitrain.mpi.hops import Hops, Pending

SLOTS = 2
"""Of vectors that are through in no time."""
NOTE = 16
"""Floats beside each vector: a line of the cache, for a number that travels with it."""
NEAR = 1 << 15
"""Values added up at a time: 128 KiB, which stay in a core's cache from one pass to the next."""
COPIED, ADDED, WRITTEN, LEFT = 0, 1, 2, 3
"""Lanes of the wire: each kind of barrier has one, on which all ranks come in one order."""

Floats = NDArray[np.float32]


class Host(Protocol):
    """What this module needs of the ranks; mpi's SharedMemory has it."""

    rank: int
    size: int

    def share(self, count: int) -> Sequence[Floats]: ...

    def start_barrier(self, lane: int, written: int = 0) -> Pending: ...


class Window(Generic[V]):
    """Shared memory for vectors of up to `longest` values. The n-th vector uses the n-th slot, in
    turn, when that is free."""

    def __init__(self, host: Host, longest: int, slots: int = SLOTS) -> None:
        """Collective. Raises UserError on every rank where the ranks cannot share so much
        memory."""
        self._host, self._stride = host, floats(longest, 1)
        self._slices = host.share(floats(longest, slots))
        self._turns = [_Turn() for _ in range(slots)]

    def mean(self, x: V, images: int, to_all: bool, number: int) -> Hops[None]:
        """x becomes the sum over ranks divided by `images`, on every rank or on rank 0 alone;
        elsewhere it stays."""
        host, slices, turn = self._host, self._slot(number, x.size), self._turn(number)
        yield turn
        turn.taken = True
        cuts = shards(x.size, host.size)
        start, stop = cuts[host.rank]
        with x.host() as mine:
            slices[host.rank][:start], slices[host.rank][stop:] = mine[:start], mine[stop:]
            yield host.start_barrier(COPIED, slices[0].nbytes)
            parts = [mine if rank == host.rank else each for rank, each in enumerate(slices)]
            add(slices[host.rank], parts, start, stop, np.float32(1 / images))
        yield host.start_barrier(ADDED)
        if to_all or host.rank == 0:
            with x.host(write=True) as mine:
                for rank, (start, stop) in enumerate(cuts):
                    mine[start:stop] = slices[rank][start:stop]
        if to_all:
            turn.leave(host.start_barrier(LEFT))

    def spread(self, y: V, w: V | None, number: int, note: float = 0.0) -> Hops[float]:
        """Rank 0's w becomes everyone's y, its own stays; the others give None. Follows `mean` of
        the same number, which was not to all.

        Returns rank 0's note.
        """
        host, slices = self._host, self._slot(number, y.size)
        beside = self._note(number)
        if w is not None:
            with w.host() as mine:
                slices[0][:] = mine
            beside[0] = note
        yield host.start_barrier(WRITTEN, slices[0].nbytes if w is not None else 0)
        if w is None:
            with y.host(write=True) as mine:
                mine[:] = slices[0]
        told = float(beside[0])
        self._turn(number).leave(host.start_barrier(LEFT))
        return told

    def _slot(self, number: int, size: int) -> list[Floats]:
        start = number % len(self._turns) * self._stride
        return [each[start : start + size] for each in self._slices]

    def _note(self, number: int) -> NDArray[np.float64]:
        end = (number % len(self._turns) + 1) * self._stride
        return self._slices[0][end - NOTE : end].view(np.float64)

    def _turn(self, number: int) -> _Turn:
        return self._turns[number % len(self._turns)]


def floats(longest: int, slots: int = SLOTS) -> int:
    """Of shared memory that each rank's part of a window takes."""
    return slots * (round_up(longest, NOTE) + NOTE)


def add(total: Floats, parts: Sequence[Floats], start: int, stop: int, factor: np.float32) -> None:
    """total = factor (the parts' sum, in their order), from start to stop."""
    for at in range(start, stop, NEAR):
        here = slice(at, min(at + NEAR, stop))
        np.add(parts[0][here], parts[1][here], out=total[here])
        for part in parts[2:]:
            np.add(total[here], part[here], out=total[here])
        if factor != 1:
            np.multiply(total[here], factor, out=total[here])


class _Turn:
    """Whose turn a slot is: done when the vector before has landed here, and been left by all
    ranks."""

    def __init__(self) -> None:
        self.taken = False
        self._left: Pending | None = None

    def leave(self, left: Pending) -> None:
        """This rank needs the slot no more; `left` is done when nobody does."""
        self.taken, self._left = False, left

    def done(self) -> bool:
        return not self.taken and (self._left is None or self._left.done())

    def wait(self) -> None:
        if self._left is not None:
            self._left.wait()
