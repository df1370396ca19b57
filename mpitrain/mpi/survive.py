"""Go on with the living ranks, under an MPI that survives the death of a rank."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from mpitrain.mpi.connect import replace
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.wait import FAILURES
from mpitrain.mpi.wire import Wire, make


def give_up(wire: Wire) -> None:
    """Cancel all communication on every living rank: waiting for messages then raises Lost.

    A single rank may call it.
    """
    for part in wire.kept.get("hosts", ()):
        if part is not None:
            give_up(part)
    for communicator in wire.communicators:
        communicator.Revoke()


def among_the_living(wire: Wire) -> Wire:
    """A new wire over the living ranks of an old one, in the same order, after `give_up`.

    All living ranks call it.
    """
    while True:
        living: Any = wire.facts.Shrink()
        made: Wire | None = None
        try:
            made = _over(living, wire)
        except FAILURES:  # another rank has died
            living.Revoke()
        try:  # every rank calls Agree once a round, so that calls match
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
        trace=wire.trace,
        name=f"{living.size} left",
    )
