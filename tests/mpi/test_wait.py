"""What MPI says of a failed message reaches people decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from mpi4py import MPI

from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.wait import failure


class Someone:
    """Rank 2 of a job."""

    rank = 0
    numbers: Sequence[int] = (2,)


def test_errors_in_statuses_are_told_as_what_they_are() -> None:
    statuses = [MPI.Status() for _ in range(3)]
    for status, code in zip(statuses, (MPI.SUCCESS, MPI.ERR_PENDING, MPI.ERR_OTHER), strict=True):
        status.Set_error(code)
    error: Any = MPI.Exception(MPI.ERR_IN_STATUS)
    said = str(failure(cast(Ranks, Someone()), error, statuses))
    assert said.startswith("rank 2: a message failed: ")
    assert "MPI_ERROR field" not in said and "\n" not in said
    assert MPI.Get_error_string(MPI.ERR_OTHER).partition("\n")[0] in said
