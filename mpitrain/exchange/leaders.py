"""Choose the ranks that code: all, or one leader on each host where several ranks share a host.

A leader adds up the vectors of its host's ranks before it codes, and hands the result on to them.
So a link carries the codes of one rank and not of several, and a mean is made of fewer coded parts.
Within a host, sums and means go through shared memory in float32.
"""

from __future__ import annotations

from typing import Any

from mpitrain.exchange.codec_protocol import V
from mpitrain.exchange.window import Window, slots_that
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.hosts import host_wires
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.device import Device


class Leaders:
    """The ranks that code, and the shared memory between each of them and its host's other ranks.

    `gather` and `spread` of one vector are called with the same number.
    """

    def __init__(
        self,
        wire: Wire,
        longest: int,
        everyone: bool = False,
        apart: bool = False,
        device: Device | None = None,
    ) -> None:
        """Collective. longest: values in the longest vector. everyone: all ranks code. device: of
        the vectors; None: the host sees them.

        apart: all vectors are gathered before the first `spread`; otherwise each has its own next.

        All ranks also code if a host has too little shared memory; `lacks_memory` is True then.
        """
        self.wire: Wire | None = wire
        """Between the ranks that code; None on a rank that does not."""
        self.count = wire.ranks.size
        """How many ranks code."""
        self.lacks_memory = False
        self._window: Window[Any] | None = None
        if everyone or wire.ranks.hosts in (1, wire.ranks.size):
            return
        within, between = host_wires(wire)
        slots = slots_that(lambda count: _fits(wire, within, count), longest)
        self.lacks_memory = not slots
        if slots:
            self.wire, self.count = between, wire.ranks.hosts
            if within.ranks.size > 1:
                self._window = Window(within.shared, longest, slots, apart, device)

    def close(self) -> None:
        """Let go of the shared memory."""
        if self._window is not None:
            self._window.close()

    @property
    def number(self) -> int:
        """This rank's index among the ranks that code; -1 if it does not code."""
        return self.wire.ranks.rank if self.wire else -1

    def gather(self, x: V, number: int) -> Hops[None]:
        """The leader's x becomes the sum over its host's ranks, in rank order.

        On the other ranks x stays as it is.
        """
        if self._window is not None:
            yield from self._window.mean(x, 1, False, number)

    def spread(self, x: V, number: int, note: float = 0.0) -> Hops[float]:
        """Copy the leader's x to its host's ranks; return the leader's note. Follows `gather`."""
        if self._window is None:
            return note
        return (yield from self._window.spread(x, x if self.wire else None, number, note))


def _fits(wire: Wire, within: Wire, count: int) -> bool:
    """Whether all hosts have shared memory for `count` floats a rank."""
    return all(wire.agree.gather_facts(within.shared.has_room(count)))
