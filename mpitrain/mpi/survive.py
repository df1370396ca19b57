"""Go on with the ranks that are alive, under an MPI that outlives the death of a rank."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from mpitrain.mpi.connect import replace
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.wait import FAILURES
from mpitrain.mpi.wire import Wire, make


def give_up(wire: Wire) -> None:
    """End all that is under way on every living rank: what waits for messages raises Lost.

    Any one rank may call it.
    """
    for part in wire.kept.get("layers", ()):
        if part is not None:
            give_up(part)
    for communicator in wire.communicators:
        communicator.Revoke()


def among_the_living(wire: Wire) -> Wire:
    """A wire over the living ranks of another, in their old order, after `give_up`.

    Called by all of them.
    """
    while True:
        living: Any = wire.facts.Shrink()
        made: Wire | None = None
        try:
            made = _over(living, wire)
        except FAILURES:  # one more has died
            living.Revoke()
        try:  # once on every rank and in every round: Agree only meets Agree
            well = living.Agree(int(made is not None))
        except MPI.Exception:
            well = 0
        if made is not None and well:
            break
    made.kept["before"] = wire  # MPI may still write to its buffers
    replace(wire, made)
    return made


def _over(living: Any, wire: Wire) -> Wire:
    ranks = wire.ranks
    places = living.group.Translate_ranks(None, wire.facts.group)
    return make(
        living,
        host=wire.host,
        delay=ranks.delay,
        numbers=[ranks.numbers[place] for place in places],
        began=ranks.began,
        sent=Sent(exchange=wire.sent.total - wire.sent.feed, feed=wire.sent.feed),
    )
