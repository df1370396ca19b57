"""Count the bytes that this rank sends, for the log and for benchmarks."""

from __future__ import annotations


class Sent:
    """Bytes passed to MPI or written to shared memory.

    For MPI's collective calls it is the least that they could send. Only one thread at a time adds
    to each of the two numbers.
    """

    def __init__(self, exchange: int = 0, feed: int = 0) -> None:
        self.exchange = exchange
        """Gradients and weights."""
        self.feed = feed
        """Images."""
        self.within: list[Sent] = []
        """Of the wires between some of these ranks, and of other threads; counted here as well."""

    @property
    def total(self) -> int:
        """All bytes sent so far."""
        return self.exchange + self.feed + sum(part.total for part in self.within)
