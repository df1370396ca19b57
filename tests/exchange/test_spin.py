"""The mean through memory that ranks share, while they spin: short and long vectors, ranks that
come late, and one that never comes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray
from ranks import digest, values

from mpitrain.exchange import spin as module
from mpitrain.exchange.spin import PIECE, SHORT, Spin
from mpitrain.job.errors import RunError
from mpitrain.mpi.blocking import Floats
from mpitrain.mpi.wire import Wire, make

pytestmark = pytest.mark.mpi(min_size=2)
SIZES = [0, 1, 17, SHORT, SHORT + 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + SHORT + 5]


@pytest.fixture(scope="module")
def wire() -> Wire:
    return make(MPI.COMM_WORLD)


def expected(size: int, ranks: int, seed: int) -> NDArray[np.float32]:
    """Added in rank order in float32, times 1 / ranks."""
    total = values(size, 0, seed)
    for rank in range(1, ranks):
        total = total + values(size, rank, seed)
    return total * np.float32(1 / ranks)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("delay", [0.0, 0.002])
def test_the_mean_is_added_in_rank_order_bit_for_bit(wire: Wire, size: int, delay: float) -> None:
    spin = Spin(wire.shared)
    wire.ranks.delay.seconds = delay
    for seed in range(4):
        vector, mean = values(size, wire.ranks.rank, seed), np.full(size, np.nan, np.float32)
        spin.mean(vector, mean)
        true = expected(size, wire.ranks.size, seed)
        np.testing.assert_array_equal(mean, true)
        np.testing.assert_array_equal(vector, values(size, wire.ranks.rank, seed))
        spin.mean(vector, vector)
        np.testing.assert_array_equal(vector, true)
    wire.ranks.delay.seconds = 0.0


def test_nobody_overtakes_in_a_long_row_of_all_lengths(wire: Wire) -> None:
    """Ranks sleep at random moments, so that each is first and last now and then; what was read too
    early or too late would differ."""
    spin, mine, lengths = (
        Spin(wire.shared),
        np.random.default_rng(wire.ranks.rank),
        np.random.default_rng(0),
    )
    wire.ranks.delay.seconds = 0.0002
    for turn in range(300):
        size = int(
            lengths.choice([1, 100, SHORT, SHORT + 3, PIECE + 9], p=[0.4, 0.3, 0.1, 0.1, 0.1])
        )
        vector = np.full(size, 1 + turn + wire.ranks.rank, np.float32)
        if mine.random() < 0.1:
            wire.shared.notice()
        spin.mean(vector, vector)
        share = np.float32(1 / wire.ranks.size)
        total = np.float32(sum(1 + turn + rank for rank in range(wire.ranks.size)))
        assert vector.min() == vector.max() == total * share, turn
    wire.ranks.delay.seconds = 0.0
    assert len(set(wire.agree.gather_facts(digest(np.array([spin._stage]))))) == 1


def test_a_rank_that_waits_long_sleeps_and_hears_that_another_is_gone(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MPI tells. The others' counts stand still, as those of the dead do."""
    monkeypatch.setattr(module, "LOOKS_WITHOUT_NAP", 100)
    asked = 0

    class Alone:
        rank, size = wire.ranks.rank, wire.ranks.size

        def share(self, count: int) -> Sequence[Floats]:
            return [np.zeros(count, np.float32) for _ in range(wire.ranks.size)]

        def fence(self, written: int = 0) -> None: ...

        def barrier(self) -> None: ...

        def notice(self) -> None:
            nonlocal asked
            asked += 1
            if asked == 3:
                raise RunError("rank 1: a message failed: gone")

    spin = Spin(Alone())
    with pytest.raises(RunError, match="gone"):
        spin.mean(np.zeros(5, np.float32), np.zeros(5, np.float32))
    assert asked == 3
