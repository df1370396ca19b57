"""Who codes: every rank, or where several share a host one of each, its leader, which adds up what
its host's ranks have.

A link then carries one rank's codes, not each one's, and a mean is made of fewer coded parts.
Within a host, sums and means go through shared memory as they are.
"""

from __future__ import annotations

from typing import Any

from mpitrain.exchange.codec_protocol import V
from mpitrain.exchange.stream import BUCKETS_AT_ONCE
from mpitrain.exchange.window import SLOTS, Window, floats
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.layers import layers
from mpitrain.mpi.wire import Wire


class Leaders:
    """The ranks that code, and shared memory for the others' vectors. Both ways of one vector have
    the same number."""

    def __init__(self, wire: Wire, longest: int, everyone: bool = False) -> None:
        """longest: values in the longest vector. everyone: all ranks code, wherever they are.
        Collective.

        Every rank codes, too, where a host lacks the shared memory: `cramped` says so.
        """
        self.wire: Wire | None = wire
        """Of those who code; None on a rank that does not."""
        self.count = wire.ranks.size
        """Ranks that code."""
        self.cramped = False
        self._window: Window[Any] | None = None
        if everyone or wire.ranks.hosts in (1, wire.ranks.size):
            return
        within, between = layers(wire)
        slots = next(
            (
                each
                for each in (BUCKETS_AT_ONCE, SLOTS)
                if _fits(wire, within, floats(longest, each))
            ),
            0,
        )
        self.cramped = not slots
        if slots:
            self.wire, self.count = between, wire.ranks.hosts
            self._window = Window(within.shared, longest, slots) if within.ranks.size > 1 else None

    @property
    def number(self) -> int:
        """This rank's among those who code; -1 if it does not."""
        return self.wire.ranks.rank if self.wire else -1

    def gather(self, x: V, number: int) -> Hops[None]:
        """The leader's x becomes the sum over its host's ranks, in their order; elsewhere x
        stays."""
        if self._window is not None:
            yield from self._window.mean(x, 1, False, number)

    def spread(self, x: V, number: int, note: float = 0.0) -> Hops[float]:
        """The leader's x to its host's ranks, and its note, which is returned. Follows each
        `gather`."""
        if self._window is None:
            return note
        return (yield from self._window.spread(x, x if self.wire else None, number, note))


def _fits(wire: Wire, within: Wire, count: int) -> bool:
    """Whether so much of shared memory a rank is there on all hosts."""
    return all(wire.agree.gather_facts(within.shared.has_room(count)))
