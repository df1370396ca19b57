"""The measurement before a run: one answer on all ranks, soon."""

from __future__ import annotations

import time
from functools import partial

import pytest
from ranks import open_cpu

from mpitrain.exchange.probe import CLEAR_AFTER_TURNS, SHORT, TURNS_MIN, in_turn, measure
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_all_ranks_get_the_same_times_soon(wire: Wire, update: str) -> None:
    device, kinds = open_cpu(), ("float32", "dynamic8", "window")
    measure(wire, device, kinds, update)  # compiles
    wire.agree.barrier()
    began = time.monotonic()
    found = measure(wire, device, kinds, update)
    assert time.monotonic() - began < 10  # of tests that share their cores
    assert min(found) == SHORT and len(found) <= 2
    for seconds in found.values():
        assert list(seconds) == list(kinds)
        assert all(0 < each < 10 for each in seconds.values())
    assert len({str(each) for each in wire.agree.gather_facts(found)}) == 1


def test_nothing_to_choose_is_not_measured(wire: Wire) -> None:
    assert measure(wire, open_cpu(), (), "root") == {}


def test_turns_go_to_what_may_be_the_quickest(wire: Wire) -> None:
    ways = {
        name: partial(time.sleep, 1e-3 * each)
        for name, each in (("slow", 40), ("one", 4), ("other", 4))
    }
    found = in_turn(wire, ways)
    assert set(found) == {"one", "other"}
    assert len(found["one"]) == len(found["other"]) >= TURNS_MIN
    assert len({str(each) for each in wire.agree.gather_facts(found)}) == 1
    clear = in_turn(wire, {name: ways[name] for name in ("slow", "one")})
    assert {name: len(times) for name, times in clear.items()} == {
        "slow": CLEAR_AFTER_TURNS,
        "one": CLEAR_AFTER_TURNS,
    }
