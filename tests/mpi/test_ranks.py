"""Ranks, hosts and the MPI library are known."""

from __future__ import annotations

import pytest

from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

mpi = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@mpi
def test_ranks_and_hosts_are_counted(wire: Wire) -> None:
    assert wire.agree.gather_facts([wire.ranks.rank, wire.ranks.size]) == [
        [rank, wire.ranks.size] for rank in range(wire.ranks.size)
    ]
    assert 0 <= wire.ranks.local_rank < wire.ranks.local_size <= wire.ranks.size
    assert wire.ranks.one_host == (wire.ranks.local_size == wire.ranks.size)


@mpi
def test_the_library_has_a_name_and_a_path(wire: Wire) -> None:
    assert "/" in wire.ranks.library
    assert "\n" not in wire.ranks.library
