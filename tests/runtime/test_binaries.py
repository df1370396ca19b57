"""Compiled programs that are kept: whole, or not taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpitrain.engine.registry import open_device
from mpitrain.runtime import binaries, program


def test_what_is_kept_is_found_again_under_the_same_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = binaries.place("name", "a device", "a driver", "source")
    assert binaries.load(path) is None
    binaries.keep(path, b"binary")
    assert binaries.load(binaries.place("name", "a device", "a driver", "source")) == b"binary"
    assert binaries.place("name", "a device", "another driver", "source") != path


def flipped(whole: bytes, bit: int) -> bytes:
    """One bit of it is another."""
    at, mask = bit // 8, 1 << bit % 8
    return whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]


def test_no_flipped_bit_of_a_kept_binary_reaches_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drivers check nothing: of 168 such binaries 11 crashed or gave NaN."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program.Program(open_device("intel"), "relu", {"WIDTH": 8, "GROUP": 1})
    (kept,) = (tmp_path / "mpitrain" / "programs").glob("relu-*.bin")
    whole = kept.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(whole), 1000):
        kept.write_bytes(flipped(whole, int(bit)))
        assert binaries.load(kept) is None
