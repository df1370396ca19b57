"""How far each rank's clock is from rank 0's: messages go there and back, and the fastest counts.

With t0 and t1 this rank's clock before and after, and T rank 0's in between: rank 0's clock is
ahead by T - (t0 + t1) / 2, with an error of at most (t1 - t0) / 2. (Cristian, 1989.)
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns as now

import numpy as np

from mpitrain.mpi.wait import wait_for
from mpitrain.mpi.wire import Wire

ROUND_TRIPS = 30
"""Messages there and back with each rank."""


@dataclass(frozen=True)
class Reading:
    """Both clocks at one moment, in nanoseconds."""

    at: int
    """This rank's clock."""
    ahead: int
    """What must be added to it to have rank 0's."""
    error: int
    """At most."""


def read(wire: Wire) -> Reading:
    """Collective. Ranks take turns; those whose turn it is spin for a moment, the others sleep."""
    ranks, talk = wire.ranks, wire.facts
    if ranks.rank == 0:
        for peer in range(1, ranks.size):
            for _ in range(ROUND_TRIPS + 1):
                talk.Send(np.array([now()], np.int64), dest=peer)
                talk.Recv(np.empty(1, np.int64), source=peer)
        return Reading(now(), 0, 0)
    theirs, found = np.empty(1, np.int64), []
    wait_for(ranks, [talk.Irecv(theirs, source=0)])  # its turn has come
    for _ in range(ROUND_TRIPS):
        t0 = now()
        talk.Send(theirs, dest=0)
        talk.Recv(theirs, source=0)
        t1 = now()
        found.append(Reading((t0 + t1) // 2, int(theirs[0]) - (t0 + t1) // 2, (t1 - t0 + 1) // 2))
    talk.Send(theirs, dest=0)
    return min(found, key=lambda each: each.error)
