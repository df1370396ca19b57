"""Activations reach every rank while other messages travel, and are counted by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mpitrain.mpi import activations
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def message(sender: int, receiver: int) -> NDArray[np.float32]:
    """Of sizes that differ from pair to pair; some are empty."""
    size = (3 * sender + 5 * receiver) % 7
    return np.full((size, 4), 100 * sender + receiver, np.float32)


def test_every_rank_gets_what_each_one_sends_it(wire: Wire) -> None:
    rank, size, one = wire.ranks.rank, wire.ranks.size, wire.activations
    before = wire.bytes_sent, wire.sent.exchange
    outgoing = [message(rank, other) for other in range(size)]
    incoming = [np.zeros_like(message(other, rank)) for other in range(size)]
    one.swap(outgoing, incoming)
    for other in range(size):
        np.testing.assert_array_equal(incoming[other], message(other, rank))
    sent = sum(each.nbytes for other, each in enumerate(outgoing) if other != rank)
    assert (wire.bytes_sent - before[0], wire.sent.exchange) == (sent, before[1])
    assert one.seconds > 0


def test_what_mpi_cannot_carry_is_refused_before_it_is_sent(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "MESSAGE_BYTES_MAX", 15)
    several = [np.zeros(4, np.float32)] * wire.ranks.size
    with pytest.raises(activations.RunError, match="--sub-batch"):
        wire.activations.swap(several, several)
