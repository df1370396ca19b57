"""Small facts: what one rank knows all know, and a failure on one is known to all."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mpitrain.job.errors import RunError, UserError
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

mpi = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@mpi
def test_everyone_hears_what_rank_0_makes(wire: Wire) -> None:
    assert wire.agree.from_root(lambda: {"rank": wire.ranks.rank, "pair": (1, "ü")}) == {
        "rank": 0,
        "pair": [1, "ü"],
    }


@mpi
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (UserError("no such file"), UserError, "^no such file$"),
        (RunError("disk full"), RunError, "^disk full$"),
        (KeyError("x"), RunError, "^rank 0: KeyError: 'x'$"),
    ],
)
def test_everyone_raises_what_rank_0_raises(
    wire: Wire, error: Exception, kind: type, words: str
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind, match=words):
        wire.agree.from_root(fail)
    with pytest.raises(RunError, match="TypeError"):
        wire.agree.from_root(lambda: object())
    assert wire.agree.from_root(lambda: 1) == 1


@mpi
def test_facts_of_any_length_come_in_rank_order(wire: Wire) -> None:
    assert wire.agree.gather_facts("x" * (wire.ranks.rank * 1000)) == [
        "x" * (rank * 1000) for rank in range(wire.ranks.size)
    ]


@mpi
def test_sums_of_float64_are_the_same_everywhere(wire: Wire) -> None:
    parts = [np.random.default_rng(rank).standard_normal(5) for rank in range(wire.ranks.size)]
    expected = np.zeros(5)
    for part in parts:
        expected = expected + part
    np.testing.assert_array_equal(wire.agree.sum(parts[wire.ranks.rank]), expected)


@mpi
def test_one_rank_of_each_host_goes_first(wire: Wire) -> None:
    """What leaders have finished before the others begin is seen by all, and everyone gets a thing
    of its own."""
    begun: list[float] = []

    def make() -> tuple[int, float]:
        begun.append(time.monotonic())
        time.sleep(0.05)
        return wire.ranks.rank, time.monotonic()

    rank, ended = wire.agree.leaders_first(make)
    assert rank == wire.ranks.rank and len(begun) == 1
    seen = wire.agree.gather_facts([wire.ranks.host, wire.ranks.local_rank, begun[0], ended])
    for host, local_rank, begin, _ in seen:
        leader_end = next(end for other, local, _, end in seen if (other, local) == (host, 0))
        assert local_rank == 0 or begin >= leader_end


@mpi
def test_a_leader_that_fails_stops_everyone(wire: Wire) -> None:
    def fail() -> None:
        raise RunError("does not compile")

    with pytest.raises(RunError, match="does not compile"):
        wire.agree.leaders_first(fail)


@mpi
def test_ranks_know_whether_they_have_the_same_numbers(wire: Wire) -> None:
    assert wire.agree.alike(np.array([1 << 40, -3, 0]))
    assert wire.agree.alike(np.array([7, wire.ranks.rank])) == (wire.ranks.size == 1)
    assert wire.agree.alike(np.array([-1 if wire.ranks.rank == wire.ranks.size - 1 else 0])) == (
        wire.ranks.size == 1
    )
