"""Vectors of ranks in memory that all ranks of their host share."""

from __future__ import annotations

from dataclasses import dataclass

from mpitrain.exchange.codec_protocol import Floats
from mpitrain.job.cut import round_up
from mpitrain.mpi.shared import PAGE
from mpitrain.mpi.wire import Wire


@dataclass(frozen=True)
class Home:
    """Where every rank of a host computes its gradient, and reads its weights, for all to see."""

    length: int
    """Values of a vector."""
    gradients: Floats
    """(ranks, apart): each rank's flat gradient, and some more."""
    weights: Floats | None
    """(n,): the flat weights of all ranks at once; None where each rank has its own."""
    velocity: Floats | None
    """(n,): the momentum that belongs to them."""

    @property
    def apart(self) -> int:
        """Values from one rank's gradient to the next."""
        return int(self.gradients.shape[1])


def make_home(wire: Wire, length: int, one_copy: bool) -> Home | None:
    """A home for vectors of `length` values; None on every rank if the ranks' host has no room for
    it, or if there are several hosts. Collective.

    one_copy: of the weights, for all ranks.
    """
    size, count = wire.ranks.size, round_up(length, PAGE)
    memory = wire.shared.keep(count * (size + 2 * one_copy))
    if memory is None:
        return None
    vectors = memory.reshape(-1, count)
    if not one_copy:
        return Home(length, vectors, None, None)
    return Home(length, vectors[:size], vectors[size, :length], vectors[size + 1, :length])
