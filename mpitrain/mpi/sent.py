"""Count the bytes that this rank sends, for the log and for benchmarks."""

from __future__ import annotations


class Sent:
    """Bytes handed to MPI or written to shared memory; for MPI's collectives the least they could
    be.

    Each of the two numbers is counted by one thread at a time.
    """

    def __init__(self, exchange: int = 0, feed: int = 0) -> None:
        self.exchange = exchange
        """Gradients and weights."""
        self.feed = feed
        """Images."""
        self.within: list[Sent] = []
        """What wires of some of the ranks have sent, which counts here as well."""

    @property
    def total(self) -> int:
        """All bytes so far."""
        return self.exchange + self.feed + sum(part.total for part in self.within)
