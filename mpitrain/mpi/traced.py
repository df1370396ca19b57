"""Transfers and batches that note their messages in a Trace: from whom, to whom, how many bytes,
from the call that starts them until this rank notices that they are done."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from time import perf_counter_ns as now
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.job.cut import shard_lengths
from mpitrain.job.trace import MESSAGES, Span, Trace
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.pieces import flat, pieces
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.scatter import Part, Scatter
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.transfer import Bytes, Transfer
from mpitrain.mpi.wait import Messages


class Notes:
    """Makes the spans of one wire's operations.

    All ranks start the operations on one lane in the same order, so the number of an operation,
    with sender and receiver, names a message alike on both.
    """

    def __init__(self, trace: Trace, ranks: Ranks, wire: str, row: str = MESSAGES) -> None:
        """wire: a name that no other wire of these ranks has. row: of the trace."""
        self.trace, self._row = trace, row
        self._ranks, self._wire = ranks, wire
        self._counts: Counter[int] = Counter()

    def begin(
        self,
        name: str,
        lane: int,
        to: Mapping[int, int],
        source: Mapping[int, int],
        **facts: object,
    ) -> Span:
        """An operation is about to start. to, source: bytes that go to each rank of the wire, and
        that come from each."""
        self._counts[lane] += 1
        key, numbers = (self._wire, lane, self._counts[lane]), self._ranks.numbers
        mine = numbers[self._ranks.rank]
        sent = {numbers[peer]: count for peer, count in to.items() if count}
        received = {numbers[peer]: count for peer, count in source.items() if count}
        known = {key: fact for key, fact in facts.items() if fact is not None}
        if sent:
            known["bytes to rank"] = {str(peer): count for peer, count in sent.items()}
        if received:
            known["bytes from rank"] = {str(peer): count for peer, count in received.items()}
        return Span(
            self._row,
            name,
            now() if self.trace.on else 0,
            0,
            known,
            [(*key, mine, peer) for peer in sent],
            [(*key, peer, mine) for peer in received],
        )

    def end(self, span: Span) -> None:
        """It is done; it is noted only if it also began while the trace was on."""
        if span.begin and not span.end:
            span.end = now()
            self.trace.add(span)


class NotedMessages(Messages):
    """Messages that note when this rank sees that they are done."""

    def __init__(self, plain: Messages, notes: Notes, span: Span) -> None:
        super().__init__(plain._ranks, plain._requests, plain._expected)
        self._plain, self._notes, self._span = plain, notes, span

    def done(self) -> bool:
        if not self._plain.done():
            return False
        self._notes.end(self._span)
        return True

    def wait(self) -> None:
        self._plain.wait()
        self._notes.end(self._span)


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
        if trace.bucket is None:  # the weights, after a death
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
