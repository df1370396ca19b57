"""Send arrays between ranks while they compute: each operation starts at once, and is Pending.

All ranks start the operations on one lane in the same order. They may do so in any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.job.cut import shard_lengths
from mpitrain.mpi.hops import Hops, complete
from mpitrain.mpi.pieces import flat, pieces
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.wait import Messages, Paced, wait_for

Bytes: TypeAlias = NDArray[np.uint8]
LANES = 6
"""Number of communicators: three for parts, means and deltas of coded buckets, two for the rest,
and one for barriers behind shared codes."""

PIECE_BYTES, PIECES_MAX = 1 << 14, 12
"""Bytes of a piece of a paced message, and into how many of them one is cut; a longer one is sent
whole. 16 lab hosts that sent each other 66,000 bytes at once over 100 Mbit/s took 280 ms for what
takes 83 ms in pieces (MPICH 5.0.2 over UCX, medians of 9)."""


class Transfer:
    """Operations on several lanes, each a duplicate of one communicator. Arrays are C-ordered."""

    def __init__(self, ranks: Ranks, lanes: Sequence[MPI.Intracomm], sent: Sent) -> None:
        self.rank, self.size, self.numbers = ranks.rank, ranks.size, ranks.numbers
        self._ranks, self._lanes, self._sent, self._delay = ranks, lanes, sent, ranks.delay

    def start_broadcast(self, array: NDArray[Any], lane: int = 0) -> Messages:
        """Copy rank 0's array to every rank's array of the same shape and type."""
        self._delay.inject()
        if self.rank == 0 and self.size > 1:
            self._sent.exchange += array.nbytes
        content = flat(array).view(np.uint8)
        requests = [self._lanes[lane].Ibcast(piece, root=0) for piece in pieces(content)]
        return Messages(self._ranks, requests)

    def start_star(self, array: NDArray[Any], lane: int = 0) -> Messages:
        """As `start_broadcast`, but rank 0 itself sends to each rank, all through its link."""
        self._delay.inject()
        content, one = flat(array).view(np.uint8), self._lanes[lane]
        if self.rank:
            return Messages(self._ranks, [one.Irecv(piece, source=0) for piece in pieces(content)])
        peers = range(1, self.size)
        self._sent.exchange += array.nbytes * len(peers)
        requests = [one.Isend(piece, dest=peer) for peer in peers for piece in pieces(content)]
        return Messages(self._ranks, requests)

    def start_reduce(self, values: NDArray[Any], lane: int = 0) -> Messages:
        """Add up an array over ranks; rank 0's becomes the sum, the others' stay as they are."""
        self._delay.inject()
        requests = []
        for piece in pieces(flat(values)):
            mine, total = (MPI.IN_PLACE, piece) if self.rank == 0 else (piece, None)
            requests.append(self._lanes[lane].Ireduce(mine, total, op=MPI.SUM, root=0))
        if self.rank:
            self._sent.exchange += values.nbytes
        return Messages(self._ranks, requests)

    def allreduce_hops(self, values: NDArray[Any], lane: int = 0) -> Hops[None]:
        """Turn an array into its sum over ranks, with the same bytes on every rank.

        MPI_Allreduce does not guarantee that (MPICH 6538, Open MPI 11721); shards that one rank
        adds up and the others copy do. Also uses the next lane.
        """
        one, other = self._lanes[lane], self._lanes[lane + 1]
        for piece in pieces(flat(values)):
            self._delay.inject()
            counts = shard_lengths(piece.size, self.size)
            mine = np.empty(counts[self.rank], values.dtype)
            reduced = one.Ireduce_scatter(piece, mine, counts, op=MPI.SUM)
            yield Messages(self._ranks, [reduced])
            yield Messages(self._ranks, [other.Iallgatherv(mine, [piece, counts])])
            self._sent.exchange += (piece.nbytes - mine.nbytes) + mine.nbytes * (self.size - 1)

    def start_all_to_all(
        self,
        outgoing: Sequence[Bytes | None],
        incoming: Sequence[Bytes | None],
        lane: int = 0,
        paced: bool = False,
    ) -> Messages:
        """Send outgoing[r] to each rank r, and receive incoming[r] from it.

        Sender and receiver know the size of each message; None or empty: there is none. Entries for
        this rank are ignored. Ranks send to rank + 1, rank + 2, ..., so that they do not all send
        to the same rank first. `wait` and `done` raise RunError that names the sender if a message
        has another size.

        paced: send a few messages at a time, short ones in pieces, and not all at once.
        """
        self._delay.inject()
        one = self._lanes[lane]
        peers = [(self.rank + hop) % self.size for hop in range(1, self.size)]
        coming = [(each, peer) for peer in reversed(peers) for each in _cut(incoming[peer], paced)]
        going = [(each, peer) for peer in peers for each in _cut(outgoing[peer], paced)]
        self._sent.exchange += sum(each.nbytes for each, _ in going)
        requests = [one.Irecv(each, source=peer) for each, peer in coming]
        expected = [(peer, each.nbytes) for each, peer in coming]
        sends = (one.Isend(each, dest=peer) for each, peer in going)
        if paced:
            return Paced(self._ranks, requests, expected, sends)
        return Messages(self._ranks, [*requests, *sends], expected)

    def start_barrier(self, lane: int = 0) -> Messages:
        """Start a barrier, which is done when every rank has started it."""
        self._delay.inject()
        return Messages(self._ranks, [self._lanes[lane].Ibarrier()])

    def broadcast(self, array: NDArray[Any]) -> None:
        """As `start_broadcast`, and wait."""
        self.start_broadcast(array).wait()

    def allreduce(self, values: NDArray[Any]) -> None:
        """As `allreduce_hops`, and wait."""
        complete(self.allreduce_hops(values))

    def send(self, array: NDArray[Any], to: int) -> None:
        """Send an array to one rank, which calls `receive` with an array of its size and type."""
        content = pieces(flat(array))
        wait_for(self._ranks, [self._lanes[0].Isend(piece, dest=to) for piece in content])

    def receive(self, array: NDArray[Any], source: int) -> None:
        """Fill an array with what `source` sends."""
        content = pieces(flat(array))
        wait_for(self._ranks, [self._lanes[0].Irecv(piece, source=source) for piece in content])


def _cut(message: Bytes | None, paced: bool) -> list[Bytes]:
    """A message in the pieces in which it is sent; nothing of an empty one."""
    if message is None or not message.size:
        return []
    if not paced or message.size > PIECES_MAX * PIECE_BYTES:
        return [message]
    return [message[start : start + PIECE_BYTES] for start in range(0, message.size, PIECE_BYTES)]
