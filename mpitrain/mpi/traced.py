"""Transfers and batches that note their messages in a Trace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.job.cut import shard_lengths
from mpitrain.job.trace import Span
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.notes import NotedMessages, Notes
from mpitrain.mpi.pieces import flat, pieces
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.scatter import Part, Scatter
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.transfer import Bytes, Transfer
from mpitrain.mpi.wait import Messages


class TracedTransfer(Transfer):
    """A Transfer whose operations are noted."""

    def __init__(
        self,
        ranks: Ranks,
        lanes: Sequence[MPI.Intracomm],
        sent: Sent,
        notes: Notes,
        name: str = "",
    ) -> None:
        """name: of all that it carries; empty: the trace knows, by lanes, what each bucket's
        messages are."""
        super().__init__(ranks, lanes, sent)
        self._notes, self._name = notes, name
        self._others = [peer for peer in range(self.size) if peer != self.rank]

    def start_broadcast(self, array: NDArray[Any], lane: int = 0) -> Messages:
        span = self._begin("broadcast", lane, *self._from_root(array.nbytes))
        return NotedMessages(super().start_broadcast(array, lane), self._notes, span)

    def start_star(self, array: NDArray[Any], lane: int = 0) -> Messages:
        span = self._begin("broadcast", lane, *self._from_root(array.nbytes))
        return NotedMessages(super().start_star(array, lane), self._notes, span)

    def start_reduce(self, values: NDArray[Any], lane: int = 0) -> Messages:
        source, to = self._from_root(values.nbytes)
        span = self._begin("sum", lane, to, source)
        return NotedMessages(super().start_reduce(values, lane), self._notes, span)

    def allreduce_hops(self, values: NDArray[Any], lane: int = 0) -> Hops[None]:
        cuts = [
            [values.itemsize * count for count in shard_lengths(piece.size, self.size)]
            for piece in pieces(flat(values))
        ]
        for number, messages in enumerate(super().allreduce_hops(values, lane)):
            assert isinstance(messages, Messages)
            shards, gathers = cuts[number // 2], number % 2
            mine = dict.fromkeys(self._others, shards[self.rank])
            others = {peer: shards[peer] for peer in self._others}
            to, source = (mine, others) if gathers else (others, mine)
            span = self._begin("gather" if gathers else "sum", lane + gathers, to, source)
            yield NotedMessages(messages, self._notes, span)

    def start_all_to_all(
        self,
        outgoing: Sequence[Bytes | None],
        incoming: Sequence[Bytes | None],
        lane: int = 0,
        paced: bool = False,
    ) -> Messages:
        span = self._begin("swap", lane, self._sizes(outgoing), self._sizes(incoming))
        messages = super().start_all_to_all(outgoing, incoming, lane, paced)
        return NotedMessages(messages, self._notes, span)

    def start_barrier(self, lane: int = 0) -> Messages:
        messages, trace = super().start_barrier(lane), self._notes.trace
        if lane not in trace.barriers:
            return messages
        facts = {"bucket": trace.bucket, "how": "barrier"}
        span = self._notes.begin(trace.barriers[lane], lane, {}, {}, **facts)
        return NotedMessages(messages, self._notes, span)

    def _begin(self, how: str, lane: int, to: Mapping[int, int], source: Mapping[int, int]) -> Span:
        trace = self._notes.trace
        if self._name:
            return self._notes.begin(self._name, lane, to, source)
        if trace.bucket is None:  # weights after a death, running statistics before an evaluation
            return self._notes.begin(how, lane, to, source)
        what = trace.words.get(lane, how)
        return self._notes.begin(what, lane, to, source, bucket=trace.bucket, how=how)

    def _from_root(self, nbytes: int) -> tuple[dict[int, int], dict[int, int]]:
        """Bytes to and from each rank where rank 0 sends all of them to each."""
        if self.rank:
            return {}, {0: nbytes}
        return dict.fromkeys(self._others, nbytes), {}

    def _sizes(self, messages: Sequence[Bytes | None]) -> dict[int, int]:
        return {peer: each.nbytes for peer in self._others if (each := messages[peer]) is not None}


class TracedScatter(Scatter):
    """A Scatter whose batches are noted."""

    def __init__(self, ranks: Ranks, communicator: MPI.Intracomm, sent: Sent, notes: Notes) -> None:
        super().__init__(ranks, communicator, sent)
        self._notes = notes

    def start(
        self,
        images: NDArray[Any] | None,
        labels: NDArray[np.int32] | None,
        parts: Sequence[slice],
        shape: tuple[int, ...],
        dtype: Any,
    ) -> Part:
        one = math.prod(shape) * np.dtype(dtype).itemsize + np.dtype(np.int32).itemsize
        sizes = [one * (part.stop - part.start) for part in parts]
        to = {peer: sizes[peer] for peer in range(1, self.size)} if self.rank == 0 else {}
        span = self._notes.begin("images", 0, to, {0: sizes[self.rank]} if self.rank else {})
        return NotedPart(super().start(images, labels, parts, shape, dtype), self._notes, span)


class NotedPart(Part):
    """A part of a batch that notes when it is here, or on rank 0 when all have left."""

    def __init__(self, plain: Part, notes: Notes, span: Span) -> None:
        super().__init__(plain._ranks, plain._images, plain._labels, plain._requests)
        self._plain, self._notes, self._span = plain, notes, span

    def wait(self) -> tuple[NDArray[Any], NDArray[np.int32]]:
        found = self._plain.wait()
        self._notes.end(self._span)
        return found
