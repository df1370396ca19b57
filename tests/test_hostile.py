"""Spoilt bytes are refused in a sentence, or taken; tests/hostile.py runs as many cases as one has time for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import KINDS, MOST_MEMORY, Gentle, read_all, refuses
from PIL import Image

from mpitrain.data.folder import decode
from mpitrain.models import netfile
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


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_spoilt_is_taken(kind: str, tmp_path: Path) -> None:
    KINDS[kind](Gentle(0), tmp_path)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "[[layer]]\n" * 20000])
def test_a_network_file_too_deep_or_too_long_for_its_reader_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"deep\.toml"):
        netfile.decode(text, "deep.toml")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (13000, 13000)).save(tmp_path / "huge.png")
    assert (tmp_path / "huge.png").stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"huge\.png.*13000 x 13000 pixels"):
        decode(tmp_path / "huge.png", (3, 8, 8))


def test_a_header_that_promises_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    promised = (1 << 31).to_bytes(4, "big")
    assert 4 * int.from_bytes(promised, "big") > MOST_MEMORY
    folder = tmp_path / "idx"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + 3 * promised)
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + promised)
    with pytest.raises(UserError, match="train-images"):
        read_all(folder)
