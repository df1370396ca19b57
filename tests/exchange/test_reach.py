"""Vectors get into shared memory and out of it alike, bit for bit, whatever holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ranks import values

from mpitrain.exchange.reach import ByDevice, Mapped, Sum
from mpitrain.mpi.hops import complete
from mpitrain.runtime import ahead
from mpitrain.runtime.array import ALIGNED
from mpitrain.runtime.device import Device

LENGTH = 5 * ALIGNED + 3
RANGES = [(0, ALIGNED), (ALIGNED, 4 * ALIGNED), (4 * ALIGNED, LENGTH), (LENGTH, LENGTH)]


def memory_of(ranks: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return [values(LENGTH, rank) for rank in range(ranks)]


def ways(device: Device, memory: Any) -> list[Mapped | ByDevice]:
    """All of them, on any device."""
    return [Mapped(), ByDevice(device, memory, LENGTH)]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("ranks", "mine"), [(2, 0), (2, 1), (3, 1), (5, 0), (5, 4)])
def test_sums_are_numpys_in_the_order_of_ranks(
    device: Device, ranks: int, mine: int, kept: bool
) -> None:
    own = values(LENGTH, 99)
    for factor in (np.float32(1), np.float32(1 / 120)):
        for (start, stop), slot in zip(RANGES, (0, 1, 0, 1), strict=True):
            for number in range(2):
                terms = memory_of(ranks)
                expected, here = [each.copy() for each in terms], slice(start, stop)
                total = own[here] if mine == 0 else terms[0][here]
                for rank in range(1, ranks):
                    total = total + (own if rank == mine else terms[rank])[here]
                expected[mine][here] = total * factor
                x = device.upload(own)
                way = ways(device, terms)[number]
                complete(way.add(x, Sum(terms, mine, (start, stop), factor, slot, kept, True)))
                np.testing.assert_array_equal(terms, expected)
                found = own.copy()
                if kept:
                    found[here] = total * factor
                np.testing.assert_array_equal(x.download(), found)
                way.close()


def test_what_nobody_reads_need_not_be_there(device: Device) -> None:
    terms, own = memory_of(2), values(LENGTH, 99)
    x, way = device.upload(own), ByDevice(device, terms, LENGTH)
    before = [each.copy() for each in terms]
    complete(way.add(x, Sum(terms, 0, (0, LENGTH), np.float32(1), 0, kept=True, read=False)))
    np.testing.assert_array_equal(x.download(), own + terms[1])
    np.testing.assert_array_equal(terms, before)


@pytest.mark.parametrize("queued", [True, False])
def test_ranges_are_copied_both_ways_and_the_rest_stays(device: Device, queued: bool) -> None:
    ranges = RANGES[1:]
    for number in range(2):
        shared, x = memory_of(2), device.upload(values(LENGTH, 99))
        way, expected = ways(device, shared)[number], shared[0].copy()
        expected[ALIGNED:] = -2
        x.fill(-2)
        if not queued:
            device.finish()
        complete(way.put(x, shared[0], ranges, queued))
        np.testing.assert_array_equal(shared[0], expected)
        pieces = [RANGES[0], (ALIGNED, ALIGNED)]
        complete(way.take([(x.part(a, b), shared[1][a:b]) for a, b in pieces]))
        expected[:ALIGNED], expected[ALIGNED:] = shared[1][:ALIGNED], -2
        np.testing.assert_array_equal(x.download(), expected)
        way.close()


def test_memory_that_cannot_be_pinned_is_said_and_copied_all_the_same(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "pin", lambda context, host: None)
    shared, x = memory_of(2), device.upload(values(LENGTH, 99))
    way = ByDevice(device, shared, LENGTH)
    assert way.lacks == "memory that is not pinned"
    complete(way.put(x, shared[0], [(0, LENGTH)], queued=True))
    np.testing.assert_array_equal(shared[0], x.download())
    way.close()


def test_several_are_on_their_way_at_once(device: Device) -> None:
    """Each in its own slot; none takes what another has left."""
    terms = [values(8 * ALIGNED, rank) for rank in range(2)]
    way = ByDevice(device, terms, 2 * ALIGNED)
    xs = [device.upload(values(8 * ALIGNED, 50 + slot)) for slot in range(4)]
    before = terms[1].copy()
    places = [(2 * slot * ALIGNED, 2 * (slot + 1) * ALIGNED) for slot in range(4)]
    sums = [
        Sum(terms, 1, place, np.float32(1), slot, kept=False, read=True)
        for slot, place in enumerate(places)
    ]
    hops = [way.add(x, each) for x, each in zip(xs, sums, strict=True)]
    pending = [next(each) for each in hops]
    for each in pending:
        each.wait()
    for place, x in zip(places, xs, strict=True):
        here = slice(*place)
        np.testing.assert_array_equal(terms[1][here], terms[0][here] + x.download()[here])
    assert (terms[1] != before).all()
