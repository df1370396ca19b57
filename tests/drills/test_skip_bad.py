"""`--skip-bad` in the real command: unreadable files do not end a run, the same images come on any
number of ranks and when it goes on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from launcher import Launch

from mpitrain.data.order import batch

PER_CLASS, CLASSES, BATCH = 12, 4, 8
STEPS = 9
"""An epoch of six, and a half."""


def spoil(path: Path) -> None:
    """Wrong between its ends, where a quick look does not come."""
    content = bytearray(path.read_bytes())
    content[41:60] = bytes(19)
    path.write_bytes(content)


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_run_with_unreadable_files_is_one_with_copies_of_their_neighbours(
    launch: Launch, tmp_path: Path, small_network: Path, pictures: Path, ranks: int
) -> None:
    command = (
        small_network,
        "--batch-size",
        BATCH,
        "--exchange",
        "float32",
        "--checkpoint-every",
        3,
    )
    copies = tmp_path / "copies"
    shutil.copytree(pictures, copies)
    shutil.copy(copies / "train/1/06.png", copies / "train/1/05.png")
    shutil.copy(copies / "train/3/00.png", copies / "train/3/11.png")
    (copies / "val/2/00.png").unlink()
    straight = launch.trains(
        *command, "--steps", STEPS, "--data", copies, ranks=ranks, out=tmp_path / "copied"
    )

    (pictures / "train/1/05.png").write_bytes(b"")
    spoil(pictures / "train/3/11.png")
    (pictures / "val/2/00.png").write_text("no image")
    out, skip = tmp_path / "run", ("--data", pictures, "--skip-bad", 3)
    first = launch.trains(*command, *skip, "--steps", 3, ranks=ranks, out=out)
    assert "--skip-bad 3: left out 2 images: train/1/05.png, val/2/00.png" in first.out
    ended = launch.trains(*command, *skip, "--steps", STEPS, "--resume", ranks=ranks, out=out)
    assert ended.weights == straight.weights
    assert ended.events("evaluate")[-1] | {"time": 0} == straight.events("evaluate")[-1] | {
        "time": 0
    }
    assert {name for event in ended.events("skip") for name in event["names"]} == {
        "train/1/05.png", "val/2/00.png", "train/3/11.png",
    }  # fmt: skip
    assert (
        "left out: " in first.out + ended.out
        and "train/3/11.png: cannot be decoded" in first.out + ended.out
    )


def test_a_run_that_a_file_has_ended_goes_on_without_it(
    launch: Launch, tmp_path: Path, small_network: Path, pictures: Path
) -> None:
    """Its images keep their numbers, so that the order is as it was."""
    seen = set(
        np.concatenate([batch(step, PER_CLASS * CLASSES, BATCH, 0) for step in range(4)]).tolist()
    )
    label, number = divmod(
        next(n for n in range(PER_CLASS * CLASSES - 1) if n not in seen), PER_CLASS
    )
    (pictures / "train" / str(label) / f"{number:02}.png").write_text("no image")
    command = (
        small_network,
        "--data",
        pictures,
        "--batch-size",
        BATCH,
        "--steps",
        STEPS,
        "--exchange",
        "float32",
        "--checkpoint-every",
        1,
    )
    straight = launch.trains(*command, "--skip-bad", 1, ranks=2, out=tmp_path / "straight")
    out = tmp_path / "run"
    ended = launch(*command, ranks=2, out=out)
    launch.ends_with(ended, 1)
    assert f"{number:02}.png: cannot be decoded" in ended.sentence()
    assert "--skip-bad N leaves out up to N such images" in ended.sentence()
    ended = launch.trains(*command, "--skip-bad", 1, "--resume", ranks=2, out=out)
    assert ended.weights == straight.weights


@pytest.mark.parametrize("ranks", [0, 2])
def test_one_too_many_is_refused_before_anything_is_computed(
    launch: Launch, tmp_path: Path, small_network: Path, pictures: Path, ranks: int
) -> None:
    for number in range(3):
        (pictures / "train" / "2" / f"{number:02}.png").write_bytes(b"")
    ended = launch(
        small_network, "--data", pictures, "--skip-bad", 2, ranks=ranks, out=tmp_path / "run"
    )
    launch.ends_with(ended, 2)
    assert ended.out == ""
    assert "02.png: cannot be decoded" in ended.sentence()
    assert "--skip-bad 2 has left out 2 images: train/2/00.png, train/2/01.png" in ended.sentence()
    assert not (tmp_path / "run").exists()


def test_an_evaluation_leaves_out_too(
    launch: Launch, tmp_path: Path, small_network: Path, pictures: Path
) -> None:
    out = tmp_path / "run"
    launch.trains(small_network, "--data", pictures, "--batch-size", BATCH, "--steps", 1, out=out)
    saved = next((out / "checkpoints").iterdir())
    count = len(list((pictures / "val").rglob("*.png")))
    (pictures / "val/0/00.png").write_bytes(b"")
    launch.ends_with(refused := launch("evaluate", saved, ranks=2), 1)
    assert "--skip-bad" in refused.sentence()
    ended = launch("evaluate", saved, "--skip-bad", 1, ranks=2)
    assert ended.code == 0
    assert "left out 1 image: val/0/00.png" in ended.out
    assert f"({count - 1} images)" in ended.out


SLOW = """
import sys, time
from pathlib import Path
from mpitrain.commands import cli, evaluate
from mpitrain.mpi import heartbeat
from mpitrain.data import decoded
evaluate.STALL, heartbeat.BEAT_SECONDS, decoded.CHUNK = 2.0, 0.2, 1
quick, seconds, hangs = decoded.trouble, float(sys.argv.pop()), float(sys.argv.pop())

def slow(split, number):
    time.sleep((seconds if "val" in split.place else 0.0) if hangs == 0 else hangs)
    return quick(split, number)

decoded.trouble = slow
cli.main()
"""
"""An evaluation whose watchdog waits for two seconds, from a disk that takes as long for a test
image as the last word says; or for any, as the one before it."""


@pytest.mark.parametrize(("hangs", "ends"), [(0, 0), (30, 1)])
def test_a_long_look_at_test_images_is_no_standstill_and_one_that_hangs_is(
    launch: Launch, tmp_path: Path, small_network: Path, pictures: Path, hangs: int, ends: int
) -> None:
    """On no rank: the others wait for the first."""
    out = tmp_path / "run"
    launch.trains(small_network, "--data", pictures, "--batch-size", BATCH, "--steps", 1, out=out)
    saved = next((out / "checkpoints").iterdir())
    count = len(list((pictures / "val").rglob("*.png")))
    program = (sys.executable, "-c", SLOW, "evaluate", saved, "--skip-bad", 1, hangs, 4.0 / count)
    ended = launch(program=program, ranks=2)
    if ends:
        assert ended.code != 0
        assert "no progress for 2 s in evaluate" in ended.err
    else:
        assert ended.code == 0, ended.err
        assert f"({count} images)" in ended.out
