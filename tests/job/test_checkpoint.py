"""Checkpoints are whole or absent, and read back what was written."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from mpitrain.job.checkpoint import (
    KEPT,
    NEEDED,
    NEEDED_OF_RUN,
    Entry,
    Reader,
    check_space,
    names_of_weights,
    newest,
    path_of,
    prune,
    write,
)
from mpitrain.job.errors import RunError, UserError

RUN = {name: kind() for name, kind in NEEDED_OF_RUN.items()}
NUMBERS = {"mean": [0.5], "std": [0.25], "ranks": 1, "images": 1}
FOUND: dict[str, Any] = {name: kind() for name, kind in NEEDED.items()} | {"run": RUN} | NUMBERS
SETTINGS = {"mpitrain": json.dumps(FOUND)}
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def entry(values: NDArray[Any], name: str = "weight") -> Entry:
    return Entry(name, values.shape, lambda: iter([values[:1], values[1:]]))


def test_what_is_written_is_read_back_by_the_library_and_by_us(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.safetensors"
    write(path, [entry(VALUES), entry(VALUES * 2, "momentum/weight")], SETTINGS)
    found = load_file(path)
    np.testing.assert_array_equal(found["weight"], VALUES)
    with Reader(path) as reader:
        assert reader.names == {"weight", "momentum/weight"} and reader.shape("weight") == (2, 3)
        assert reader.settings() == FOUND
        np.testing.assert_array_equal(reader.read("momentum/weight"), VALUES * 2)


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], {})
    before = path.read_bytes()

    def broken() -> Iterator[NDArray[np.float32]]:
        yield VALUES[:1]
        raise RuntimeError("a rank is gone")

    with pytest.raises(RuntimeError):
        write(path, [Entry("weight", VALUES.shape, broken)], {})
    with pytest.raises(RunError, match="weight has 12 bytes, its shape says 24"):
        write(path, [Entry("weight", VALUES.shape, lambda: iter([VALUES[:1]]))], {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "file" / "one.safetensors", [entry(VALUES)], {})


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        Reader(path)


def test_weights_of_others_have_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], {})
    with (
        Reader(path) as reader,
        pytest.raises(UserError, match="--init and predict --network take"),
    ):
        reader.settings()


def test_the_newest_whole_one_is_found_and_three_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (2, 10, 30, 400):
        write(path_of(folder, step), [entry(VALUES)], SETTINGS)
    path_of(folder, 400).write_bytes(b"half")
    found = newest(tmp_path)
    assert found and found.path == path_of(folder, 30)
    assert [sentence.partition(" is not")[0] for sentence in found.refused] == [
        str(path_of(folder, 400))
    ]
    assert newest(tmp_path, path_of(folder, 30).name) is None
    (folder / f".{path_of(folder, 500).name}.123").write_text("a killed process's")
    prune(folder)
    assert (
        sorted(folder.iterdir()) == [path_of(folder, step) for step in (10, 30, 400)] and KEPT == 3
    )
    assert newest(tmp_path / "elsewhere") is None
    for path in folder.iterdir():
        path.write_bytes(b"half")
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        newest(tmp_path)
    for path in folder.iterdir():
        path.unlink()
    (tmp_path / "log.jsonl").write_text('{"event": "checkpoint", "step": 400}\n')
    with pytest.raises(UserError, match="tells of checkpoints, and there is no checkpoint in"):
        newest(tmp_path)


def test_whole_numbers_and_empty_tensors_are_kept_and_values_start_aligned(tmp_path: Path) -> None:
    path, steps = tmp_path / "one.safetensors", np.array([[1], [1 << 40]])
    for letters in range(8):
        write(
            path,
            [
                Entry("steps", (2, 1), lambda: [steps], dtype="int64"),
                Entry("none", (0, 3), lambda: iter([]), dtype="float32"),
                entry(VALUES),
            ],
            {"note": "x" * letters},
        )
        (length,) = struct.unpack("<Q", path.read_bytes()[:8])
        assert length % 8 == 0
        with Reader(path) as reader:
            assert reader.metadata == {"note": "x" * letters}
            np.testing.assert_array_equal(reader.read("steps"), steps)
            assert reader.read("steps").dtype == np.int64 and reader.read("none").shape == (0, 3)
            np.testing.assert_array_equal(reader.read("weight"), VALUES)


def test_pieces_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """Each is written before the next is made, so a checkpoint never needs the memory of a whole
    network."""
    alive: list[weakref.ref[NDArray[Any]]] = []

    def pieces() -> Iterator[NDArray[Any]]:
        for _ in range(5):
            assert sum(each() is not None for each in alive) <= 1
            piece = np.zeros((2, 3), np.float32)
            alive.append(weakref.ref(piece))
            yield piece

    write(tmp_path / "one.safetensors", [Entry("weight", (10, 3), pieces)], {})
    assert len(alive) == 5


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.safetensors: there is no such file"):
        Reader(tmp_path / "none.safetensors")


def test_every_flipped_bit_and_every_cut_is_refused_by_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], SETTINGS)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for harmed in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :],
        ):
            path.write_bytes(harmed)
            with pytest.raises(UserError) as said, Reader(path) as reader:
                reader.settings()
            assert str(path) in str(said.value) and "\n" not in str(said.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        pickle.dumps({"weight": VALUES}),
        b"PK\3\4" + bytes(1000),
        b"\xff" * 100,
        b"{}" * 8,
        bytes(8),
        struct.pack("<Q", 2) + b"[]",
    ],
)
def test_files_of_other_kinds_are_refused_and_never_unpickled(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"one\.safetensors is not a whole safetensors file"):
        Reader(path)


def test_settings_that_say_too_little_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    for text in ("no JSON", "[1]", '{"step": 3}'):
        write(path, [entry(VALUES)], {"mpitrain": text})
        with (
            Reader(path) as reader,
            pytest.raises(UserError, match="its settings lack network, name"),
        ):
            reader.settings()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"run": {}}, "run.data, run.batch_size, run.seed, run.augment, run.no_dropout;"),
        (
            {"run": RUN | {"batch_size": "64", "seed": None}},
            "run.batch_size (expected int, got str), run.seed;",
        ),
        ({"run": RUN | {"no_dropout": 0}}, "run.no_dropout (expected bool, got int);"),
        ({"run": RUN | {"seed": True}}, "run.seed (expected int, got bool);"),
        ({"run": [1]}, "run (expected dict, got list);"),
        (
            {"sub_batch": "x", "coders": 1.5},
            "coders (expected int, got float), sub_batch (expected int, got str);",
        ),
        (
            {"mean": ["x"], "classes": [["x"]]},
            "mean of float (got str), classes of str (got list);",
        ),
        ({"speeds": [1.0, None]}, "speeds of float (got NoneType);"),
    ],
)
def test_settings_of_other_kinds_are_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    """Under a right checksum: whoever reads them later would end with a KeyError or a TypeError."""
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], {"mpitrain": json.dumps(FOUND | changed)})
    with Reader(path) as reader, pytest.raises(UserError) as said:
        reader.settings()
    assert str(said.value) == f"{path}: its settings lack {words} it is of another mpitrain"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mean": []}, "finite means (got [])"),
        ({"mean": [math.nan]}, "finite means (got [nan])"),
        ({"std": [0.0]}, "deviations above 0, one for each mean (got [0.0])"),
        ({"std": [1.0, 1.0]}, "deviations above 0, one for each mean"),
        ({"std": [math.inf]}, "deviations above 0"),
        ({"longest_bucket": -512}, "a longest_bucket that is a multiple of 512 (got -512)"),
        ({"longest_bucket": 1000}, "a multiple of 512 (got 1000)"),
        ({"ranks": 0}, "ranks of at least 1"),
        ({"step": -1}, "a step of at least 0"),
        ({"run": RUN | {"layout": "x"}}, "run.layout nchw or nhwc (got 'x')"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], {"mpitrain": json.dumps(FOUND | changed)})
    with Reader(path) as reader, pytest.raises(UserError, match=re.escape(words)):
        reader.settings()


def test_brackets_that_are_too_deep_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], {"mpitrain": "[" * 100_000 + "]" * 100_000})
    with Reader(path) as reader, pytest.raises(UserError, match="its settings lack network"):
        reader.settings()


def test_no_flipped_bit_of_a_checkpoint_passes(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write(path, [entry(VALUES)], SETTINGS)
    whole = path.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(whole), 1000).tolist():
        at = bit // 8
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit % 8]) + whole[at + 1 :])
        with pytest.raises(UserError), Reader(path) as reader:
            reader.settings()


def test_settings_that_may_be_missing_may_be_null(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    for more in (
        {},
        {"sub_batch": None, "speeds": None},
        {"sub_batch": 3, "speeds": [1.5], "coders": 2},
    ):
        write(path, [entry(VALUES)], {"mpitrain": json.dumps(FOUND | more)})
        with Reader(path) as reader:
            assert reader.settings() == FOUND | more


def test_a_disk_without_room_is_said_before_the_run(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path / "run", 1 << 20, 100)
    with pytest.raises(UserError, match="MiB each, the disk has"):
        check_space(tmp_path / "run", free // 3, 1 << 62)
    check_space(tmp_path / "run", free // 3, 1)


KILLS = int(os.environ.get("MPITRAIN_KILLS", "25"))
WRITER = Path(__file__).with_name("checkpoint_writer.py")


@pytest.mark.timeout(30 + KILLS)
def test_a_kill_at_any_moment_leaves_the_newest_or_the_one_before_it(tmp_path: Path) -> None:
    """kill -9 of a process that does nothing but write checkpoints. MPITRAIN_KILLS=200 says how
    often."""
    with subprocess.Popen(
        [sys.executable, WRITER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        draw, within = random.Random(0), 0
        for _ in range(KILLS):
            print(draw.uniform(0.002, 0.06), file=process.stdin, flush=True)
            begun, done = map(int, process.stdout.readline().split())  # by a writer that is dead
            found = newest(tmp_path)
            steps = sorted(int(path.stem[5:]) for path in (tmp_path / "checkpoints").glob("step-*"))
            assert steps[-1] in (done, begun) and begun - done <= 1
            assert (
                found
                and found.path.name == f"step-{steps[-1]:08d}.safetensors"
                and not found.refused
            )
            within += begun > done
        process.stdin.close()
    assert within > KILLS / 4, "the kills came between checkpoints"


def test_names_of_wrappers_and_of_older_files_are_the_networks_own() -> None:
    block = "features.denseblock3.denselayer12"
    theirs = {
        f"{block}.norm.1.running_mean": f"{block}.norm1.running_mean",
        f"module.{block}.conv.2.weight": f"{block}.conv2.weight",
        f"{block}.norm1.bias": f"{block}.norm1.bias",
        "features.norm.1.weight": "features.norm.1.weight",
    }
    found = names_of_weights([*theirs, "features.norm.1.num_batches_tracked"])
    assert found == {own: name for name, own in theirs.items()}
