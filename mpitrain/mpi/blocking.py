"""The float32 mean over ranks by MPI's blocking calls: one way each for short and long vectors.

MPI's blocking calls spin while they wait, so this is for a thread with nothing else to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.job.cut import shard_lengths
from mpitrain.mpi.pieces import ELEMENTS_PER_CALL, pieces
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.wait import failure

Floats: TypeAlias = NDArray[np.float32]
DOUBLING_MAX_BYTES = 1 << 12
"""Up to this length of a vector, few messages are faster than short ones."""


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
"""way(calls, source, mean, factor): mean = factor * (the sum over ranks of source). Collective.

Both are flat and C-ordered, and may be the same array."""


def by_library(calls: Calls, source: Floats, mean: Floats, factor: np.float32) -> None:
    """MPI_Allreduce, which gives all ranks the same bytes for certain only if there are two.

    (MPICH 6538, Open MPI 11721.)
    """
    calls.Allreduce(None if source is mean else source, mean)
    np.multiply(mean, factor, out=mean)


def by_doubling(calls: Calls, source: Floats, mean: Floats, factor: np.float32) -> None:
    """Recursive doubling: pairs swap their sums so far, log2(size) times. For short vectors.

    All ranks get the same bytes: two partners add the same two sums, and a + b is b + a. Each rank
    beyond the last power of two first sends its vector to a partner below that power, and in the
    end receives the mean from it.
    """
    rank, power = calls.rank, 1 << (calls.size.bit_length() - 1)
    if rank >= power:
        calls.Send(source, rank - power)
        calls.Recv(mean, rank - power)
        return
    other, sums = np.empty_like(source), source
    if rank + power < calls.size:
        calls.Recv(other, rank + power)
        sums = np.add(sums, other, out=mean)
    distance = 1
    while distance < power:
        peer = rank ^ distance
        calls.Sendrecv(sums, peer, 0, other, peer, 0)
        sums = np.add(sums, other, out=mean)
        distance *= 2
    np.multiply(sums, factor, out=mean)
    if rank + power < calls.size:
        calls.Send(mean, rank + power)


def by_shards(calls: Calls, source: Floats, mean: Floats, factor: np.float32) -> None:
    """Each rank adds up one shard and sends it to all. For long vectors.

    All ranks get the same bytes, because each shard is added up by one rank.
    """
    counts = shard_lengths(source.size, calls.size)
    mine = np.empty(counts[calls.rank], np.float32)
    calls.Reduce_scatter(source, mine, counts)
    np.multiply(mine, factor, out=mine)
    calls.Allgatherv(mine, [mean, counts])


class BlockingMean:
    """The mean of flat float32 arrays over all ranks, for the main thread."""

    def __init__(self, ranks: Ranks, communicator: MPI.Intracomm, sent: Sent) -> None:
        self._ranks, self._communicator, self._sent = ranks, communicator, sent
        self._size, self._delay = ranks.size, ranks.delay
        self._factor = np.float32(1 / ranks.size)

    def mean(self, source: Floats, mean: Floats, way: Way | None = None) -> None:
        """mean = the mean over ranks of source. Collective.

        Both are C-ordered; the same array, or two that share no memory. way: one of this module's;
        None takes one that gives all ranks the same bytes.
        """
        if self._delay.seconds:
            self._delay.inject()
        size = self._size
        if size == 1:
            np.copyto(mean, source)
            return
        if way is None:
            short = source.nbytes <= DOUBLING_MAX_BYTES
            way = by_doubling if short else by_library if size == 2 else by_shards
        try:
            if source.size <= ELEMENTS_PER_CALL:
                way(self._communicator, source, mean, self._factor)
            else:
                for piece, part in zip(pieces(source), pieces(mean), strict=True):
                    one = part if source is mean else piece
                    way(self._communicator, one, part, self._factor)
        except MPI.Exception as error:
            raise failure(self._ranks, error) from error
        self._sent.exchange += 2 * source.nbytes * (size - 1) // size
