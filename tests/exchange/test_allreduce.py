"""The mean of a NumPy vector, on any number of ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from ranks import digest, values

from mpitrain.exchange import allreduce as module
from mpitrain.exchange.allreduce import allreduce
from mpitrain.exchange.codec_numpy import HALF_STEP
from mpitrain.job.errors import UserError
from mpitrain.mpi import blocking
from mpitrain.mpi.connect import over

pytestmark = pytest.mark.mpi
KINDS = ["auto", "float32", "float16", "dynamic8", "window"]


@pytest.fixture
def comm() -> MPI.Intracomm:
    return MPI.COMM_WORLD


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 511, 513, 40_000])
def test_all_ranks_get_the_same_mean(comm: MPI.Intracomm, kind: str, size: int) -> None:
    vector = values(size, comm.rank)
    before = vector.copy()
    mean = allreduce(vector, comm, kind)
    parts = [values(size, rank).astype(np.float64) for rank in range(comm.size)]
    true = sum(parts) / comm.size
    assert mean.dtype == np.float32
    assert mean.shape == vector.shape
    np.testing.assert_array_equal(vector, before)
    assert len(set(over(comm).agree.gather_facts(digest(mean)))) == 1
    assert digest(allreduce(vector, comm, kind)) == digest(mean)
    largest = max((np.abs(part).max(initial=0) for part in parts), default=0)
    allowed = {"dynamic8": 4 * HALF_STEP * largest, "float16": largest / 500}.get(
        kind, 1e-6 * largest
    )
    assert np.abs(mean - true).max(initial=0) <= allowed


def test_what_auto_takes_can_be_asked(comm: MPI.Intracomm) -> None:
    own = comm.Dup()
    assert module.taken(3000, own) is None
    allreduce(values(3000, comm.rank), own)
    kinds = {"library", "doubling", "shards", "window"} if comm.size > 1 else {None}
    assert module.taken(3000, own) in kinds


def test_shapes_are_kept(comm: MPI.Intracomm) -> None:
    assert allreduce(values(60, comm.rank).reshape(3, 4, 5), comm).shape == (3, 4, 5)


def test_ranks_that_disagree_are_all_told(comm: MPI.Intracomm) -> None:
    last = comm.size - 1
    with pytest.raises(UserError, match="float32 vector on rank 0"):
        allreduce(np.zeros(4), comm)
    with pytest.raises(UserError, match="exchange of auto"):
        allreduce(np.zeros(4, np.float32), comm, "int4")
    if comm.size > 1:
        with pytest.raises(UserError, match=f"rank 0 has 10 values, rank {last} has 11"):
            allreduce(np.zeros(10 + (comm.rank == last), np.float32), comm)
        with pytest.raises(UserError, match=f"rank 0 asks for float32, rank {last} for float16"):
            allreduce(np.zeros(4, np.float32), comm, "float16" if comm.rank == last else "float32")


@pytest.mark.parametrize("size", [1, 1000, 5000, 40_000])
def test_the_mean_may_take_the_place_of_the_vector(comm: MPI.Intracomm, size: int) -> None:
    vector = values(size, comm.rank)
    expected = allreduce(vector, comm, "float32")
    assert allreduce(vector, comm, "float32", out=vector, check=False) is vector
    np.testing.assert_array_equal(vector, expected)
    view = vector[:]
    expected = allreduce(vector, comm, "float32")
    np.testing.assert_array_equal(allreduce(vector, comm, "float32", out=view), expected)


def test_a_rank_sees_by_itself_what_it_cannot_send(comm: MPI.Intracomm) -> None:
    for vector, kind, words in (
        (np.zeros(4), "auto", "float32 vector, got float64"),
        (np.zeros(4, np.float32), "int4", "an exchange of auto"),
    ):
        with pytest.raises(UserError, match=words):
            allreduce(vector, comm, kind, check=False)
    with pytest.raises(UserError, match="as out"):
        allreduce(np.zeros(4, np.float32), comm, out=np.zeros(5, np.float32), check=False)


def test_an_out_that_does_not_fit_on_one_rank_is_told_to_all(comm: MPI.Intracomm) -> None:
    last = comm.size - 1
    out = np.empty(4, np.float64 if comm.rank == last else np.float32)
    words = (
        r"C-ordered float32\(4,\) as out, got float64"
        if comm.rank == last
        else f"rank {last} has an out"
    )
    with pytest.raises(UserError, match=words):
        allreduce(np.zeros(4, np.float32), comm, out=out)


def test_a_sum_that_differs_between_ranks_is_not_taken(
    comm: MPI.Intracomm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MPI whose ranks add in different orders, and is quickest."""

    def unlike(calls: Any, source: Any, mean: Any, share: np.float32) -> None:
        blocking.by_library(calls, source, mean, share)
        mean += np.float32(1e-3 * calls.rank)

    own = comm.Dup()
    monkeypatch.setitem(module.BLOCKING, "library", unlike)
    monkeypatch.setattr(module, "by_library", unlike)
    monkeypatch.setattr(module, "in_turn", lambda wire, ways: {"library": [1.0], "shards": [2.0]})
    mean = allreduce(values(3000, comm.rank), own)
    same = len(set(over(own).agree.gather_facts(digest(mean)))) == 1
    assert same is (comm.size != 2)  # of two ranks no order of adding differs, and nobody looks
