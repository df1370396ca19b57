"""Pinned memory is lent, comes back, and carries arrays to a device and from it."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.runtime import array
from mpitrain.runtime.device import Device
from mpitrain.runtime.pinned import Pinned


def test_what_is_lent_twice_at_once_is_not_the_same(device: Device) -> None:
    pinned = Pinned(device.context, device.queue)
    with pinned.lent(5000) as one, pinned.lent(5000) as other:
        one[:], other[:] = 1, 2
        assert (one == 1).all() and one.size == other.size == 5000


def test_what_came_back_is_lent_again(device: Device) -> None:
    """Also after an exception, and for another length that it suffices for."""
    pinned = Pinned(device.context, device.queue)
    with pytest.raises(KeyError), pinned.lent(5000) as first:
        raise KeyError
    with pinned.lent(8192) as again, pinned.lent(10) as small:
        assert np.shares_memory(first, again) and not np.shares_memory(first, small)


@pytest.mark.parametrize("largest", [array.LARGEST, 64])
def test_a_host_view_is_read_and_written_back(
    device: Device, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pinned memory that others had before, or of other memory where it is too much."""
    monkeypatch.setattr(array, "LARGEST", largest)
    values = np.arange(3 * 128, dtype=np.float32)
    whole = device.upload(values)
    for number in range(3):
        part = whole.part(128 * number, 128 * number + 128)
        with part.host() as seen:
            np.testing.assert_array_equal(seen, values[128 * number :][:128])
        with part.host(write=True) as mine, whole.host() as all_of_it:
            mine[:] = -number
            assert all_of_it[-1] == values[-1] or number == 2
    np.testing.assert_array_equal(whole.download(), -np.repeat(np.arange(3), 128))
