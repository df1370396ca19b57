"""Notes of messages in a Trace: from whom, to whom, how many bytes, from the call that starts them
until this rank notices that they are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from time import perf_counter_ns as now

from mpitrain.job.trace import MESSAGES, Span, Trace
from mpitrain.mpi.ranks import Ranks
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
