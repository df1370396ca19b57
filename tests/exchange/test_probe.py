"""The measurement before a run: one answer on all ranks, soon."""

from __future__ import annotations

import time

import pytest
from ranks import open_cpu

from mpitrain.exchange.probe import FEW, measure
from mpitrain.exchange.wire import Wire, connect

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_all_ranks_get_the_same_times_soon(wire: Wire, update: str) -> None:
    device, kinds = open_cpu(), ("float32", "dynamic8", "window")
    measure(wire, device, kinds, update)  # compiles
    wire.barrier()
    began = time.monotonic()
    found = measure(wire, device, kinds, update)
    assert time.monotonic() - began < 10  # of tests that share their cores
    assert min(found) == FEW and len(found) <= 2
    for seconds in found.values():
        assert list(seconds) == list(kinds)
        assert all(0 < each < 10 for each in seconds.values())
    assert len({str(each) for each in wire.gather_facts(found)}) == 1


def test_nothing_to_choose_is_not_measured(wire: Wire) -> None:
    assert measure(wire, open_cpu(), (), "root") == {}
