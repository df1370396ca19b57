"""Who reads images, and how they are looked at, in the real command."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from launcher import Ended, Launch

from mpitrain.data.well_known import PARTS

STEPS, BATCH = 4, 12
SIDE = 28
LOOKS = (
    *("--augment", "resized,flip,jitter", "--mixup", 0.2, "--label-smoothing", 0.1),
    *("--resize", 32),
)


def words(data: Path | str, *more: object) -> tuple[object, ...]:
    return (
        *("lenet", "--data", data, "--batch-size", BATCH, "--steps", STEPS, "--no-dropout"),
        *("--exchange", "float32", "--evaluate-every", STEPS, *more),
    )


def sent(ended: Ended) -> int:
    return sum(int(step["bytes_sent"]) for step in ended.events("step"))


def test_where_each_rank_reads_its_own_rank_0_sends_no_images(
    launch: Launch, tmp_path: Path, pictures: Path
) -> None:
    """And all else is the same, to the last bit."""
    ends = {
        read: launch.trains(*words(pictures, *LOOKS, "--read", read), ranks=4, out=tmp_path / read)
        for read in ("root", "local")
    }
    assert len({ended.weights for ended in ends.values()}) == 1
    # With mixup a part of three images needs the neighbour of one of them: 4, 4, 4 are sent.
    away = STEPS * 3 * 4 * (SIDE * SIDE + 4)
    assert sent(ends["root"]) - sent(ends["local"]) == away
    assert "rank 0 reads images for all (--read root)" in ends["root"].out
    scores = [ended.events("evaluate")[-1]["loss"] for ended in ends.values()]
    assert len(set(scores)) == 1 and scores[0] > 0
    assert sum(step["seconds"]["data"] for step in ends["local"].events("step")) > 0


def test_arrays_that_each_rank_has_give_the_same_weights(launch: Launch, tmp_path: Path) -> None:
    ends = [
        launch.trains(*words("synthetic:24", "--read", read), ranks=3, out=tmp_path / read)
        for read in ("root", "local")
    ]
    assert len({ended.weights for ended in ends}) == 1
    assert sent(ends[0]) - sent(ends[1]) == STEPS * 2 * 4 * (SIDE * SIDE + 4)


def test_images_are_looked_at_alike_on_any_number_of_ranks(
    launch: Launch, tmp_path: Path, pictures: Path
) -> None:
    losses = []
    for ranks in (0, 3):
        ended = launch.trains(*words(pictures, *LOOKS), ranks=ranks, out=tmp_path / str(ranks))
        losses.append([step["loss"] for step in ended.events("step")])
    assert "each rank reads its own images (all see the same)" in ended.out
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


ELSEWHERE = """
import os, sys
from mpitrain.commands import cli
rank = next(int(os.environ[name]) for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
            if name in os.environ)
os.chdir(sys.argv.pop() if rank == 1 else sys.argv.pop(-2))
sys.argv = [word for word in sys.argv if not os.path.isdir(word) or "/proc/" in word]
cli.main()
"""
"""Rank 1 is on another host as far as it can see: /proc/self/cwd is another folder there."""


@pytest.mark.parametrize("there", ["nothing", "other pixels"])
def test_ranks_that_see_other_files_are_found_before_they_train_on_them(
    launch: Launch, tmp_path: Path, pictures: Path, there: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if there != "nothing":
        shutil.copytree(pictures, other / pictures.name)
        first = other / pictures.name / "train" / "0" / "00.png"
        shutil.copy(other / pictures.name / "train" / "1" / "00.png", first)
    program = (sys.executable, "-c", ELSEWHERE)
    data = Path("/proc/self/cwd") / pictures.name
    ended = launch(
        *words(data, "--read", "local", pictures.parent, other), ranks=2, program=program
    )
    assert ended.code != 0
    said = "no such path" if there == "nothing" else "has other images there"
    assert "--read local: rank 1 on " in ended.sentence() and said in ended.sentence()
    if there == "nothing":
        out = tmp_path / "run"
        command = words(data, "--out", out, pictures.parent, other)
        ended = launch(*command, ranks=2, program=program)
        assert ended.code == 0, ended.err
        assert "rank 0 reads images for all (rank 1 on " in ended.out


def test_reading_locally_and_skipping_bad_ones_are_refused_together(
    launch: Launch, pictures: Path
) -> None:
    ended = launch(*words(pictures, "--read", "local", "--skip-bad", 1), ranks=2)
    launch.ends_with(ended, 2)
    assert "--read local: --skip-bad counts images on one rank" in ended.sentence()


def test_a_run_goes_on_only_with_the_same_looks_and_is_scored_by_them(
    launch: Launch, tmp_path: Path, pictures: Path
) -> None:
    out = tmp_path / "run"
    began = launch.trains(*words(pictures, *LOOKS), out=out)
    ended = launch(*words(pictures, "--resume", *LOOKS[:2], "--resize", 32), out=out)
    launch.ends_with(ended, 2)
    assert "its run had label_smoothing 0.1, this one has 0.0" in ended.sentence()
    scored = launch("evaluate", out, "--json", ranks=2)
    assert scored.code == 0, scored.err
    found = json.loads(scored.out)
    assert abs(found["loss"] - began.events("evaluate")[-1]["loss"]) < 1e-5
    few = launch("predict", out, pictures / "val" / "0" / "00.png")
    assert few.code == 0 and "00.png: " in few.out


def test_an_evaluation_finds_the_same_whoever_reads(
    launch: Launch, tmp_path: Path, pictures: Path
) -> None:
    out = tmp_path / "run"
    launch.trains(*words(pictures, "--resize", 32), out=out)
    found = []
    for ranks, read in ((0, "auto"), (3, "root"), (3, "local"), (3, "auto")):
        scored = launch("evaluate", out, "--json", "--confusion", "--read", read, ranks=ranks)
        assert scored.code == 0, scored.err
        found.append(json.loads(scored.out))
    assert found[1] == found[2] == found[3]
    assert found[0].pop("loss") == pytest.approx(found[1].pop("loss"), rel=1e-6)
    assert found[0] == found[1]
    refused = launch("evaluate", out, "--read", "local", "--skip-bad", 1, ranks=2)
    launch.ends_with(refused, 2)
    assert "--read local: --skip-bad counts images on one rank" in refused.sentence()


def test_a_data_set_by_name_is_found_again_by_its_checkpoint(
    launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / "sets" / "mnist"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in PARTS:
        shape = (24, 28, 28) if "images" in name else (24,)
        values = random.integers(0, 10, shape, np.uint8)
        head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (folder / name).write_bytes(gzip.compress(head + values.tobytes()))
    out, env = tmp_path / "run", {"MPITRAIN_DATA": str(tmp_path / "sets")}
    ended = launch.trains(*words("mnist", "--read", "local"), ranks=2, out=out, env=env)
    assert f"data mnist: in {folder}" in ended.out
    assert "each rank reads its own images" in ended.out
    scored = launch("evaluate", out, env=env)
    assert scored.code == 0 and "(24 images)" in scored.out, scored.err
