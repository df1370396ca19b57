"""Sums in fixed point, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import BUCKETS, IMAGES, LENGTH, Model, values

from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

pytestmark = pytest.mark.mpi

UNIT = 2.0**-36
PIECES = 3


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def step(model: Model, pieces: list[np.ndarray]) -> None:
    """A step of this rank's pieces, in their order."""
    for piece in pieces[:-1]:
        model.gradient.write(piece)
        model.exchange.add()
    model.gradient.write(pieces[-1])
    for bucket in BUCKETS:
        model.exchange.send(bucket, IMAGES)
    model.exchange.finish()


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_pieces_add_up_to_the_same_bits_in_any_order(wire: Wire, update: str) -> None:
    model = Model(wire, "exact", update)
    size, rank = wire.ranks.size, wire.ranks.rank
    pieces = [values(LENGTH, nth) for nth in range(PIECES * size)]
    whole = sum(np.rint(piece.astype(np.float64) / UNIT).astype(np.int64) for piece in pieces)
    wanted = (np.asarray(whole).astype(np.float32) * np.float32(UNIT)) * np.float32(1 / IMAGES)
    for mine in (pieces[PIECES * rank :][:PIECES], pieces[rank::size][::-1]):
        step(model, mine)
        if update == "replicated" or rank == 0:
            np.testing.assert_array_equal(model.means, wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**15])
def test_what_is_too_large_or_not_a_number_becomes_nan(wire: Wire, value: float) -> None:
    model = Model(wire, "exact", "replicated")
    pieces = [values(LENGTH, nth) for nth in range(PIECES)]
    if wire.ranks.rank == wire.ranks.size - 1:
        pieces[0][7] = value
    step(model, pieces)
    assert np.isnan(model.means[7]) and np.isnan(model.means).sum() == 1
    step(model, [values(LENGTH, nth) for nth in range(PIECES)])
    assert not np.isnan(model.means).any()
