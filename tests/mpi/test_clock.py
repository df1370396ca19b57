"""Clocks of ranks are compared within the error that is stated: on one host they are one clock."""

from __future__ import annotations

import pytest

from mpitrain.mpi import clock
from mpitrain.mpi.connect import connect


@pytest.mark.mpi
def test_ranks_of_one_host_find_that_they_have_one_clock() -> None:
    wire = connect()
    found = [clock.read(wire) for _ in range(3)]
    everyone = wire.agree.gather_facts([[each.at, each.ahead, each.error] for each in found])
    for rank, readings in enumerate(everyone):
        for _, ahead, error in readings:
            assert abs(ahead) <= error
            assert (error == 0) == (rank == 0)
    assert sorted(each.at for each in found) == [each.at for each in found]
