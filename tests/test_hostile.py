"""Spoilt bytes are refused in a sentence, or taken; tests/hostile.py runs as many cases as one has time for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import KINDS, MOST_MEMORY, read_all, refuses

from mpitrain.report import UserError


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_bytes_are_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    refused = 0
    for number in range(150):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused += refuses(kind, number, folder)
    assert refused > 50, "most of them are spoilt where it matters"


def test_a_header_that_promises_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    promised = (1 << 31).to_bytes(4, "big")
    assert 4 * int.from_bytes(promised, "big") > MOST_MEMORY
    folder = tmp_path / "idx"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + 3 * promised)
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + promised)
    with pytest.raises(UserError, match="train-images"):
        read_all(folder)
