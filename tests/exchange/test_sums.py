"""Numbers that stand for vectors: the same from every device, others for other vectors."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import open_cpu, values

from mpitrain.engine.engine import Engine
from mpitrain.exchange.sums import Squares, checksums

LENGTH = 5 * 512 + 7
MASK = 0xFFFFFFFF


def expected(x: np.ndarray) -> list[int]:
    """One value after the other, in Python's whole numbers."""
    found = [0] * (-(-x.size // 512))
    for i, value in enumerate(x.view(np.uint32).tolist()):
        bits = (value + i * 0x9E3779B9) & MASK
        bits = (bits ^ bits >> 16) * 0x85EBCA6B & MASK
        found[i // 512] = found[i // 512] + (bits ^ bits >> 13) & MASK
    return found


@pytest.mark.parametrize("length", [1, 511, 512, LENGTH])
def test_checksums_are_the_same_on_every_device(device: Engine, length: int) -> None:
    x = values(length, 3)
    x[0] = -0.0
    if length > 9:
        x[7], x[8], x[9] = np.nan, np.inf, 1e-42
    assert checksums(device.upload(x)).tolist() == expected(x)


def test_a_bit_or_two_values_in_each_others_place_change_a_checksum(device: Engine) -> None:
    x = values(LENGTH, 3)
    before = checksums(device.upload(x))
    for place in (0, 513, LENGTH - 1):
        for bit in (0, 31):
            other = x.copy()
            other.view(np.uint32)[place] ^= np.uint32(1 << bit)
            found = checksums(device.upload(other)) != before
            assert np.flatnonzero(found).tolist() == [place // 512]
    other = x.copy()
    other[[3, 4]] = other[[4, 3]]
    assert np.flatnonzero(checksums(device.upload(other)) != before).tolist() == [0]


def test_squares_are_added_up_as_numpy_does(device: Engine) -> None:
    x = values(LENGTH, 3)
    array = device.upload(x)
    squares = Squares(array)
    assert squares() == pytest.approx(float(np.square(x.astype(np.float64)).sum()), rel=1e-6)
    array.fill(2.0)
    assert squares() == pytest.approx(4.0 * LENGTH)
    assert Squares(open_cpu().zeros((0,)))() == 0
