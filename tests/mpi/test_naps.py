"""Naps between looks grow as they should."""

from __future__ import annotations

import time

import pytest

from mpitrain.mpi import naps as naps_module
from mpitrain.mpi.naps import Naps


def test_naps_are_none_then_steady_then_longer_up_to_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(naps_module, "offer", lambda: slept.append(0))
    naps = Naps(yields=2, shortest=1.0, longest=3.0, steady=2)
    for looks in range(10):
        naps.after(looks)
    assert slept == [0, 0, 1, 1, 1, 2, 3, 3, 3]
