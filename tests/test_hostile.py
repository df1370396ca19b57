"""Spoilt bytes and words are refused in a sentence, or taken, with a right result; tests/fuzz.py
tries as many as one has time for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import MOST_MEMORY, TARGETS, as_long, good_message, read_all, refuses
from hostile import decode as decode_records
from hostile import settings as good_settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mpitrain.commands.scaling import parse_ranks
from mpitrain.data import augment
from mpitrain.data.picture import decode
from mpitrain.data.source import open_source
from mpitrain.exchange.codec_numpy import PlainDynamic8, PlainFloat16, flush
from mpitrain.exchange.codec_protocol import BLOCK, Plain, blocks
from mpitrain.job.checkpoint import NEEDED
from mpitrain.job.config import Run, interval, numbers
from mpitrain.job.errors import UserError
from mpitrain.network.models import netfile
from mpitrain.runtime.device import _index
from mpitrain.training.faults import Fault

QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ODD = [
    n.to_bytes(size, order)
    for size in (2, 4, 8)
    for order in ("big", "little")
    for n in (0, 1, 127, 255, 1 << 8 * size - 1, (1 << 8 * size) - 1)
]
"""Numbers at which sizes and counts go wrong."""


@st.composite
def spoilt(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes with one to four places cut, repeated or written over, most of them near the
    beginning, where headers are."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), draw(st.sampled_from([16, 256, 1 << 30])))))
        cut = draw(st.one_of(st.integers(0, 8), st.sampled_from([64, 1 << 30])))
        new = draw(st.one_of(st.binary(max_size=8), st.sampled_from(ODD)))
        again = draw(st.sampled_from([1, 1, 1, 2, 8, 5000]))
        data[at : at + cut] = new * again
    return bytes(data)


def nearly_good(kind: str) -> st.SearchStrategy[bytes]:
    """Spoilt ones of each of a target's good bytes, and now and then any bytes."""
    return st.one_of(*(spoilt(good) for good in TARGETS[kind].good()), st.binary(max_size=200))


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("kind", TARGETS)
def test_spoilt_bytes_are_refused_in_a_sentence(kind: str) -> None:
    refused = []

    @QUICK
    @given(nearly_good(kind))
    def run(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            refused.append(refuses(kind, data, Path(folder)))
        if kind == "message":
            assert refused[-1] or as_long(data) == good_message(), "damage went unnoticed"

    run()
    assert sum(refused) > 50, "most of them are spoilt where it matters"


@pytest.mark.parametrize("kind", TARGETS)
def test_what_is_not_spoilt_is_taken(kind: str) -> None:
    for good in TARGETS[kind].good():
        with tempfile.TemporaryDirectory() as folder:
            TARGETS[kind].take(good, Path(folder))


@QUICK
@given(st.binary(min_size=1024, max_size=2052))
def test_any_bytes_are_codes(data: bytes) -> None:
    decode_records(data)


@QUICK
@given(st.binary(max_size=4 * 600))
def test_any_values_come_back_within_the_bound_that_their_bytes_give(data: bytes) -> None:
    """NaN, infinities and denormals included, which count as zero."""
    x = np.frombuffer(data[: len(data) // 4 * 4], np.float32).copy()
    for codec in (PlainDynamic8(), PlainFloat16()):
        codes, found = codec.bytes(blocks(x.size) * codec.record), codec.floats(x.size)
        residual = codec.floats(x.size)
        codec.encode(codes, Plain(x), residual)
        codec.decode_add(found, codes, True)
        bounds = np.repeat(codec.bounds(codes.values), BLOCK)[: x.size]
        fine = np.isfinite(bounds)
        error = flush(x)[fine].astype(np.float64) - found.values[fine]
        assert (abs(error) <= bounds[fine]).all()
        assert np.array_equal(residual.values[fine], flush(error.astype(np.float32)))


@settings(QUICK, max_examples=50)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists),
    st.sampled_from(sorted(NEEDED)),
)
def test_settings_of_another_kind_are_refused(value: Any, name: str) -> None:
    """In a checkpoint whose checksum is right."""
    found = good_settings()
    if type(value) is not NEEDED[name]:
        found[name] = value
        with (
            tempfile.TemporaryDirectory() as folder,
            pytest.raises(UserError, match=f"lack {name}"),
        ):
            TARGETS["saved"].take(b"\2" + json.dumps(found).encode(), Path(folder))


# -- words of the command line
# --------------------------------------------------------------------------------------------------

WORDS: dict[str, tuple[Callable[[str], Any], list[str]]] = {
    "augment": (augment.parse, ["crop", "flip", ","]),
    "interval": (
        lambda text: interval(text, 7, "--checkpoint-every"),
        ["100", "2ep", "ep", "²", "٣", "9" * 5000],
    ),
    "numbers": (
        lambda text: numbers(text, 3, "--mean"),
        ["0.5", ",", "nan", "inf", "-0", "1e400", "1_0"],
    ),
    "deviations": (
        lambda text: numbers(text, 3, "--std", above=0.0),
        ["0.5", ",", "0", "-1", "1e-400"],
    ),
    "inject": (
        lambda text: Fault(text, 0),
        ["kind=nan", "rank=1", "step=", "phase=", ",", "delay=", "slow=", "nan", "-1", "inf"],
    ),
    "device": (_index, ["cpu", ":", "0", "²", "9" * 5000]),
    "ranks": (parse_ranks, ["1", "2", ",", "²", "9" * 5000]),
    "data": (
        lambda text: open_source(f"synthetic:{text}", shape_hint=(1, 4, 4), classes=2),
        ["7", "²", "-", "9" * 9],
    ),
}
"""What reads an option's text, and pieces that it looks for."""


@pytest.mark.parametrize("option", WORDS)
def test_any_words_are_an_option_or_refused_in_a_sentence(option: str) -> None:
    read, pieces = WORDS[option]

    @QUICK
    @given(st.lists(st.sampled_from(pieces) | st.text(max_size=3), max_size=6).map("".join))
    def run(text: str) -> None:
        with contextlib.suppress(UserError):
            found = read(text)
            if isinstance(found, list):
                assert all(math.isfinite(number) for number in found)

    for piece in pieces:
        run = example(piece)(run)
    run()


@QUICK
@given(
    st.sampled_from([field.name for field in dataclasses.fields(Run)[1:]]),
    st.integers() | st.floats() | st.text() | st.none(),
)
def test_any_value_is_a_setting_or_refused_in_a_sentence(name: str, value: Any) -> None:
    """Of the setting's own type: the command line makes sure of that."""
    kind = typing.get_type_hints(Run)[name]
    if type(value) in (typing.get_args(kind) or (kind,)):
        with contextlib.suppress(UserError):
            run = Run("lenet", **{name: value})
            assert not (isinstance(value, float) and math.isnan(value)), "NaN is no setting"
            run.completed({})


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
