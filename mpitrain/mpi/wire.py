"""The Wire: everything with which one rank communicates with the others of one communicator.

Facts, images, activations and each lane of the exchange have a duplicate of the communicator each,
because they are sent at the same time. Everything is sent by mpi4py's upper-case buffer calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mpi4py import MPI

from mpitrain.job.trace import IMAGES, Trace
from mpitrain.mpi.activations import Activations
from mpitrain.mpi.agree import Agree
from mpitrain.mpi.blocking import BlockingMean
from mpitrain.mpi.delay import Delay
from mpitrain.mpi.notes import Notes
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.scatter import Scatter
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.shared import SharedMemory
from mpitrain.mpi.traced import TracedScatter, TracedTransfer
from mpitrain.mpi.transfer import LANES, Transfer

Communicator: TypeAlias = MPI.Intracomm


@dataclass(frozen=True, eq=False)
class Wire:
    """One rank's connections. Code that needs only one of the parts is given that part alone."""

    ranks: Ranks
    agree: Agree
    transfer: Transfer
    scatter: Scatter
    activations: Activations
    shared: SharedMemory
    blocking: BlockingMean
    sent: Sent
    facts: Communicator
    communicators: tuple[Communicator, ...]
    """All communicators, `facts` included."""
    host: int | None
    """As passed to `make`."""
    name: str
    """Of its messages where they are noted, unlike that of other wires."""
    trace: Trace | None = None
    """Where its messages are noted, if they are."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What other modules made once for these ranks, by a name of the module's."""

    @property
    def bytes_sent(self) -> int:
        """Bytes this rank has sent so far: gradients, weights, activations and images."""
        return self.sent.total


def make(
    communicator: Communicator,
    *,
    host: int | None = None,
    delay: Delay | None = None,
    numbers: Sequence[int] | None = None,
    began: int | None = None,
    sent: Sent | None = None,
    trace: Trace | None = None,
    name: str = "all",
) -> Wire:
    """A wire over all ranks of a communicator, which stays the caller's. Collective.

    host: for tests, a number; ranks with the same one count as ranks of one host. delay: that of
    another wire. numbers, began: see Ranks. sent: where to count bytes. trace: where to note
    messages; name: unlike that of other wires that note theirs there.
    """
    facts = communicator.Dup()
    lanes = [communicator.Dup() for _ in range(LANES)]
    images, within_passes = communicator.Dup(), communicator.Dup()
    within = split(communicator, host)
    delay, sent = delay or Delay(communicator.rank), sent or Sent()
    ranks = Ranks(communicator, within, delay, numbers, began)
    agree = Agree(ranks, facts)
    beside = Sent()  # counted by itself: the exchange counts in another thread
    sent.within.append(beside)
    transfer, scatter = Transfer(ranks, lanes, sent), Scatter(ranks, images, sent)
    swaps = Transfer(ranks, [within_passes], beside)
    if trace is not None:
        transfer = TracedTransfer(ranks, lanes, sent, Notes(trace, ranks, name))
        scatter = TracedScatter(ranks, images, sent, Notes(trace, ranks, f"{name} images", IMAGES))
        notes = Notes(trace, ranks, f"{name} passes")
        swaps = TracedTransfer(ranks, [within_passes], beside, notes, "activations")
    return Wire(
        ranks=ranks,
        agree=agree,
        transfer=transfer,
        scatter=scatter,
        activations=Activations(swaps),
        shared=SharedMemory(ranks, agree, transfer, within, facts, sent),
        blocking=BlockingMean(ranks, facts, sent),
        sent=sent,
        facts=facts,
        communicators=(facts, *lanes, images, within_passes, within),
        host=host,
        name=name,
        trace=trace,
    )


def traced(wire: Wire, trace: Trace) -> Wire:
    """A wire between the same ranks whose messages are noted. Collective."""
    ranks = wire.ranks
    numbers, began = ranks.numbers, ranks.began if ranks.bereaved else None
    return make(
        wire.facts, host=wire.host, delay=ranks.delay, numbers=numbers, began=began, trace=trace
    )


def split(communicator: Communicator, host: int | None) -> Any:
    """A communicator of the ranks that share this one's host. Collective."""
    if host is None:
        return communicator.Split_type(MPI.COMM_TYPE_SHARED, key=communicator.rank)
    return communicator.Split(host, communicator.rank)
