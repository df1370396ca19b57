"""Make wires between the ranks of this host, and between the hosts' leaders."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI

from mpitrain.mpi.wire import Communicator, Wire, make, split


def host_wires(wire: Wire) -> tuple[Wire, Wire | None]:
    """A wire between this host's ranks, and one between the leaders: the first rank of each host.

    The second is None on ranks that are not leaders. Collective; both are made once and kept.
    """
    if "hosts" not in wire.kept:
        ranks = wire.ranks
        within = split(wire.facts, wire.host)
        leads = ranks.local_rank == 0
        leaders: Any = wire.facts.Split(0 if leads else MPI.UNDEFINED, ranks.rank)
        wire.kept["hosts"] = _part(wire, within), _part(wire, leaders) if leads else None
    found: tuple[Wire, Wire | None] = wire.kept["hosts"]
    return found


def _part(wire: Wire, communicator: Communicator) -> Wire:
    ranks = wire.ranks
    numbers = np.empty(communicator.size, np.int64)
    communicator.Allgather(np.array([ranks.numbers[ranks.rank]], np.int64), numbers)
    made = make(
        communicator,
        delay=ranks.delay,
        numbers=numbers.tolist(),
        trace=wire.trace,
        name=f"{wire.name}: ranks {' '.join(map(str, numbers))}",
    )
    communicator.Free()
    wire.sent.within.append(made.sent)
    return made
