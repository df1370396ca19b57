"""Arrays that a device gets while it computes."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.engine.engine import Engine
from mpitrain.runtime.ahead import Ahead, InTurn, Late


def test_an_array_is_on_the_device_once_it_is_asked_for(device: Engine) -> None:
    ahead = Ahead(device, 4 * 35)
    batches = np.random.default_rng(0).normal(size=(5, 7, 5)).astype(np.float32)
    for whole in batches:
        assert ahead.take(whole) is None
        ahead.bring(whole[:6])
        assert ahead.take(whole[:5]) is None, "others may ask in between"
        found = ahead.take(whole[:6])
        assert found is not None
        np.testing.assert_array_equal(found.download()[:120].view(np.float32), whole[:6].ravel())
        assert ahead.take(whole[:6]) is None, "it is taken once"


def test_two_are_never_in_one_place(device: Engine) -> None:
    """The device may still read what was taken while the next one comes."""
    ahead = Ahead(device, 12)
    places = []
    for number in range(4):
        host = np.full(12, number, np.uint8)
        ahead.bring(host)
        places.append(ahead.take(host))
    assert places[0] is places[2] and places[1] is places[3] and places[0] is not places[1]


@pytest.mark.parametrize("other", [np.zeros(3, np.int8), np.zeros(3, np.uint8)])
def test_only_the_same_numbers_are_taken_for_it(device: Engine, other: object) -> None:
    host = np.zeros(6, np.uint8)
    ahead = Ahead(device, 12)
    ahead.bring(host[:3])
    assert ahead.take(host[::2]) is None
    assert ahead.take(host[:3].view(np.int8)) is None
    assert ahead.take(other) is None  # type: ignore[arg-type]
    assert ahead.take(host[:3]) is not None


def test_what_is_asked_for_late_is_what_it_was(device: Engine) -> None:
    x = device.upload(np.arange(256, dtype=np.int32))
    late = Late(x.part(128, 256).reshape((4, 30)))
    for number in range(3):
        late.ask()
        x.write(np.full(256, number, np.int32))
        expected = np.arange(128, 248) if number == 0 else np.full(120, number - 1)
        np.testing.assert_array_equal(late.get(), expected.reshape(4, 30))


def test_copies_in_turn_leave_the_one_before_alone(device: Engine) -> None:
    turn = InTurn(device, 40)
    first = turn.copy(np.arange(10, dtype=np.int32))
    second = turn.copy(np.full((2, 3), 7, np.float32))
    np.testing.assert_array_equal(first, np.arange(10))
    np.testing.assert_array_equal(second, np.full(6, 7))
    assert np.shares_memory(turn.copy(np.zeros(3, np.uint8)), first)
