"""The float32 mean over ranks by MPI's blocking calls, in the ways that are quickest for short and for long vectors.

They are for a thread that has nothing else to do, for they spin while they wait. The sum and the mean may be one array.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]


class Calls(Protocol):
    """The calls of an MPI communicator that this module needs."""

    rank: int
    size: int

    def Allreduce(self, sendbuf: Any, recvbuf: Any) -> None: ...

    def Reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Any) -> None: ...

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None: ...

    def Send(self, buf: Any, dest: int) -> None: ...

    def Recv(self, buf: Any, source: int) -> None: ...

    def Sendrecv(
        self, sendbuf: Any, dest: int, sendtag: int, recvbuf: Any, source: int, recvtag: int
    ) -> None: ...


Way: TypeAlias = Callable[[Calls, Floats, Floats, np.float32], None]
"""way(calls, source, mean, share): mean = share (the sum over ranks of source), both flat and C-ordered; collective."""


def by_library(calls: Calls, source: Floats, mean: Floats, share: np.float32) -> None:
    """MPI_Allreduce, which does not promise the same bytes on every rank (MPICH 6538, Open MPI 11721); of two ranks it gives them."""
    calls.Allreduce(None if source is mean else source, mean)
    np.multiply(mean, share, out=mean)


def by_doubling(calls: Calls, source: Floats, mean: Floats, share: np.float32) -> None:
    """Recursive doubling: pairs swap their sums so far, log2(size) times. For short vectors.

    The same bytes everywhere: two partners add the same two sums, and a + b is b + a. Ranks beyond the last power of two hand
    theirs to one below it first, and get the mean from there.
    """
    rank, twin = calls.rank, 1 << (calls.size.bit_length() - 1)
    if rank >= twin:
        calls.Send(source, rank - twin)
        calls.Recv(mean, rank - twin)
        return
    other, sums = np.empty_like(source), source
    if rank + twin < calls.size:
        calls.Recv(other, rank + twin)
        sums = np.add(sums, other, out=mean)
    distance = 1
    while distance < twin:
        peer = rank ^ distance
        calls.Sendrecv(sums, peer, 0, other, peer, 0)
        sums = np.add(sums, other, out=mean)
        distance *= 2
    np.multiply(sums, share, out=mean)
    if rank + twin < calls.size:
        calls.Send(mean, rank + twin)


def by_shards(calls: Calls, source: Floats, mean: Floats, share: np.float32) -> None:
    """Each rank adds up one shard and hands it round. For long vectors; the same bytes everywhere, for each is made in one place."""
    counts = [stop - start for start, stop in pairwise(ends(source.size, calls.size))]
    mine = np.empty(counts[calls.rank], np.float32)
    calls.Reduce_scatter(source, mine, counts)
    np.multiply(mine, share, out=mine)
    calls.Allgatherv(mine, [mean, counts])


def ends(count: int, size: int) -> list[int]:
    """Where the shards of a vector begin, and its end: rank r adds up what lies between the r-th and the next."""
    return [rank * count // size for rank in range(size + 1)]
