"""Rows of split layers in the 8-bit code: every rank gets the same decoded values, and a message
that is not the expected one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from ranks import coded_once, open_cpu, values

from mpitrain.engine.engine import Engine
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_numpy import HALF_STEP
from mpitrain.exchange.message import HEADER
from mpitrain.exchange.rows import CodedRows
from mpitrain.job.errors import RunError
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array

pytestmark = pytest.mark.mpi
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def rows_on(device: Engine, wire: Wire) -> CodedRows[Array]:
    return CodedRows(wire.activations, make_codec("dynamic8", device))


def message(sender: int, receiver: int, turn: int) -> Floats:
    """Of sizes that differ from pair to pair: none, less than a block, blocks, and more than goes
    in one piece."""
    size = (0, 7, 1024, 40_000, 700)[(sender + 3 * receiver + turn) % 5]
    return values(size, sender, receiver + 10 * turn)


def test_every_rank_gets_what_each_one_sends_it_once_coded(device: Engine, wire: Wire) -> None:
    rank, size, rows = wire.ranks.rank, wire.ranks.size, rows_on(device, wire)
    wire.ranks.delay.seconds = 0.001
    right, sent, before = True, 0, wire.bytes_sent
    for turn in range(5):
        outgoing = [message(rank, other, turn) for other in range(size)]
        incoming = [np.empty_like(message(other, rank, turn)) for other in range(size)]
        rows.swap(outgoing, incoming)
        for sender, came in enumerate(incoming):
            wanted = message(sender, rank, turn)
            right &= np.array_equal(came, coded_once(wanted))
            bound = HALF_STEP * 2 * np.abs(wanted).max(initial=0)
            right &= bool((np.abs(came - wanted) <= bound).all())
        sent += sum(
            HEADER + each.size + -(-each.size // 512)
            for other, each in enumerate(outgoing)
            if other != rank and each.size
        )
    wire.ranks.delay.seconds = 0.0
    counted = wire.bytes_sent - before == sent
    assert wire.agree.gather_facts([bool(right), counted]) == [[True, True]] * size


def test_an_array_for_all_is_coded_once_and_reaches_all(device: Engine, wire: Wire) -> None:
    rank, size, rows = wire.ranks.rank, wire.ranks.size, rows_on(device, wire)
    incoming = [np.empty((3, 500), np.float32) for _ in range(size)]
    rows.swap([values(1500, rank).reshape(3, 500)] * size, incoming)
    right = [
        np.array_equal(came.reshape(-1), coded_once(values(1500, sender)))
        for sender, came in enumerate(incoming)
    ]
    assert wire.agree.gather_facts(right) == [[True] * size] * size


def test_where_nobody_has_anything_nothing_is_sent(device: Engine, wire: Wire) -> None:
    size, rows, before = wire.ranks.size, rows_on(device, wire), wire.bytes_sent
    nothing = [np.empty((0, 7), np.float32) for _ in range(size)]
    rows.swap(nothing, [each.copy() for each in nothing])
    assert wire.agree.gather_facts(wire.bytes_sent - before) == [0] * size


def test_what_is_not_finite_stays_so(wire: Wire) -> None:
    rank, size, rows = wire.ranks.rank, wire.ranks.size, rows_on(open_cpu(), wire)
    mine = values(1024, rank)
    if rank == size - 1:
        mine[600] = np.inf
    incoming = [np.empty(1024, np.float32) for _ in range(size)]
    rows.swap([mine] * size, incoming)
    finite = [bool(np.isfinite(came).all()) for came in incoming]
    assert wire.agree.gather_facts(finite) == [[True] * (size - 1) + [False]] * size
    assert np.isfinite(incoming[-1][:512]).all()


def test_a_rank_that_is_out_of_step_is_named(wire: Wire) -> None:
    rank, size, rows = wire.ranks.rank, wire.ranks.size, rows_on(open_cpu(), wire)
    last = size - 1
    rows._swaps = 5 if rank == last else 4
    said = ""
    try:
        rows.swap([values(9, rank)] * size, [np.empty(9, np.float32) for _ in range(size)])
    except RunError as error:
        said = str(error)
    wrong = (last, "4, got 5") if rank != last else (0, "5, got 4")
    words = f"message from rank {wrong[0]}: expected step {wrong[1]}"
    assert wire.agree.gather_facts(size == 1 or said == words) == [True] * size
