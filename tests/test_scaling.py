from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpitrain import scaling
from mpitrain.report import RunError, UserError
from mpitrain.scaling import (
    Point,
    core_note,
    csv_text,
    last_words,
    parse_ranks,
    point,
    table,
    training_options,
)


def events(
    ranks: int, totals: Sequence[float], device: str = "CPU (Intel), cores 0,1"
) -> list[dict[str, Any]]:
    """A log: a first step of 9 s, which compiles, and steps of so many seconds, of which a quarter is exchange."""
    start = {"event": "start", "ranks": ranks, "batch_size": 120, "devices": [device] * ranks}
    start |= {"exchange": "float32", "update": "root", "versions": {"mpi": "MPICH 5 (/lib/libmpi.so)"}}
    steps = [
        {
            "event": "step",
            "seconds": {"total": each, "compute": 0.75 * each, "exchange": 0.25 * each, "wait": 0.0},
            "bytes_sent": 1_000_000 * (ranks - 1),
        }
        for each in (9.0, *totals)
    ]
    return [start, *steps, {"event": "end", "exit": 0}]


def at(ranks: int, seconds: float, cores: int = 0) -> Point:
    parts = {"compute": 0.75 * seconds, "exchange": 0.25 * seconds, "wait": 0.0}
    return Point(
        ranks,
        120,
        40,
        seconds,
        0.9 * seconds,
        1.5 * seconds,
        parts,
        1e6,
        cores,
        "CPU; MPICH; exchange float32",
    )


def test_a_point_is_the_median_of_all_steps_but_the_first() -> None:
    found = point(events(2, [0.2, 0.4, 0.3]), ["a/0", "b/1"])
    assert (found.ranks, found.steps, found.seconds, found.fastest, found.slowest) == (2, 3, 0.3, 0.2, 0.4)
    assert found.images_per_second == pytest.approx(400)
    assert found.exchange_share == pytest.approx(0.25)
    assert found.bytes_sent == 1_000_000


def test_one_step_is_none_to_measure() -> None:
    with pytest.raises(RunError, match="with 1 rank: no step to measure"):
        point(events(1, []), ["a/0"])


@pytest.mark.parametrize(
    ("hosts", "name", "cores"),
    [
        (["a/0", "a/0"], "CPU (Intel), cores 0,1", 2),
        (["a/0", "a/1"], "CPU (Intel), cores 0,1", 2),  # virtual nodes of one host
        (["a/0", "b/1"], "CPU (Intel), cores 0,1", 4),
        (["a/0", "b/1"], "H100 (NVIDIA CUDA)", 0),
    ],
)
def test_cores_of_one_host_are_counted_once(hosts: list[str], name: str, cores: int) -> None:
    assert point(events(2, [0.1], name), hosts).cores == cores


def test_speed_up_is_against_the_fewest_ranks_and_efficiency_against_their_growth() -> None:
    two, eight = at(2, 0.8), at(8, 0.4)
    assert eight.speed_up(two) == pytest.approx(2)
    assert eight.efficiency(two) == pytest.approx(0.5)
    assert "speed-up: against 2 ranks" in table("resnet18", [two, eight])
    assert "against" not in table("resnet18", [at(1, 1.0), two])


def test_the_models_give_the_papers_figures() -> None:
    assert scaling.star_seconds(8) == pytest.approx(32)
    assert scaling.star_seconds(1) / scaling.star_seconds(4) == pytest.approx(2.9, abs=0.05)
    assert scaling.sharded_seconds(8) == pytest.approx(14, abs=0.5)
    assert scaling.sharded_seconds(1) == scaling.COMPUTE


def test_the_table_has_lenet_beside_the_papers_nearly_linear_curve() -> None:
    text = table("lenet", [at(1, 0.06, 1), at(2, 0.04, 2), at(4, 0.03, 4)])
    assert text == (
        "lenet, batch 120 over all ranks, 40 steps a run after the first: median seconds a step, and the bytes that rank 0 sends\n"
        "ranks  cores  s/step  fastest  slowest  images/s  speed-up  efficiency  exchange  MB sent/step  paper\n"
        "-----  -----  ------  -------  -------  --------  --------  ----------  --------  ------------  -----\n"
        "    1      1  0.0600   0.0540   0.0900   2,000.0      1.00        100%       25%          1.00     ~1\n"
        "    2      2  0.0400   0.0360   0.0600   3,000.0      1.50         75%       25%          1.00     ~2\n"
        "    4      4  0.0300   0.0270   0.0450   4,000.0      2.00         50%       25%          1.00     ~4\n"
        "here, with 4 ranks: CPU; MPICH; exchange float32\n"
        "paper (arXiv 1702.01846), Figure 6 left: LeNet, batch 120, float32, 1 to n tablets that run a browser: nearly linear\n"
    )


def test_the_table_has_vgg16_beside_the_papers_points_and_both_models() -> None:
    lines = table("vgg16", [at(1, 40.0), at(4, 12.0), at(8, 7.0)]).splitlines()
    assert lines[1].split()[-3:] == ["paper", "star", "sharded"]
    assert [line.split()[-3:] for line in lines[3:6]] == [
        ["-", "1.0", "1.0"],
        ["2.8", "2.9", "3.7"],
        ["3.3", "3.1", "6.8"],
    ]
    assert any("NVIDIA K80" in line and line.startswith("paper (arXiv") for line in lines)


def test_the_csv_has_a_row_a_point_and_says_nothing_where_it_knows_nothing() -> None:
    rows = list(csv.DictReader(csv_text("vgg16", [at(1, 40.0), at(4, 10.0)]).splitlines()))
    assert list(rows[0]) == list(scaling.COLUMNS)
    assert [row["speed_up"] for row in rows] == ["1.0", "4.0"]
    assert [row["paper_speed_up"] for row in rows] == ["", "2.8"]
    assert [row["cores"] for row in rows] == ["", ""]
    other = next(csv.DictReader(csv_text("resnet18", [at(1, 4.0, 2)]).splitlines()))
    assert (other["cores"], other["paper_speed_up"], other["star_model"]) == ("2", "", "")


def test_it_is_said_when_no_speed_up_is_to_be_expected() -> None:
    same = [at(1, 1.0, 2), at(2, 1.0, 2), at(4, 1.0, 2)]
    assert core_note(same).startswith(
        "note: no speed-up is to be expected: 2 and 4 ranks share the 2 cores that 1 rank already had"
    )
    assert core_note(same) in table("lenet", same)
    assert "at most 1.5 with 2 ranks (6 cores)" in core_note([at(1, 1.0, 4), at(2, 1.0, 6)])
    assert core_note([at(1, 1.0, 2), at(2, 1.0, 4)]) == ""
    assert core_note([at(1, 1.0), at(2, 1.0)]) == ""


def test_ranks_are_sorted() -> None:
    assert parse_ranks("4, 1,2") == [1, 2, 4]


@pytest.mark.parametrize("text", ["", "two", "1,,2", "0,1", "-1", "1.5", "1,2,2"])
def test_wrong_ranks_are_refused_before_anything_runs(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--ranks"):
        scaling.measure("lenet", text, "mpirun -n {ranks}", tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_a_run_has_the_papers_batch_and_some_steps_unless_said_otherwise() -> None:
    assert training_options("lenet", []) == ["--batch-size", "120", "--steps", "41"]
    assert training_options("lenet", ["--batch-size=64", "--epochs", "2"]) == [
        "--batch-size=64",
        "--epochs",
        "2",
    ]
    assert training_options("vgg16", ["--exchange", "dynamic8"]) == ["--exchange", "dynamic8", "--steps", "6"]
    with pytest.raises(UserError, match="--steps 1: at least 2"):
        training_options("lenet", ["--steps", "1"])


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("mpirun -n 2", "is missing"),
        ("no-such-launcher {ranks}", "no program"),
        ("mpirun '{ranks}", "quotation"),
    ],
)
def test_a_launcher_that_cannot_work_is_refused(launcher: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        scaling.measure("lenet", "1", launcher, tmp_path / "out", [])


def test_it_is_refused_under_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(UserError, match="run it without mpirun"):
        scaling.measure("lenet", "1", f"{sys.executable} {{ranks}}", tmp_path / "out", [])


def test_without_matplotlib_nothing_runs_and_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'mpitrain\[plots\]'"):
        scaling.measure("lenet", "1", f"{sys.executable} {{ranks}}", tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_last_words_are_mpitrains_own_if_it_said_any() -> None:
    said = "Traceback ...\nmpitrain: rank 1 of 2: ValueError: no\nAbort(1) on node 1\n"
    assert last_words(said, 1) == "rank 1 of 2: ValueError: no"
    assert (
        last_words("Usage: ...\nError: No such option '--x'.\nsrun: Terminated\n", 2)
        == "No such option '--x'."
    )
    assert last_words("one\ntwo\n\n", 1) == "two"
    assert last_words("", 137) == "the run ended without a word, exit code 137"


mpirun = pytest.mark.skipif(
    not (Path(sys.executable).parent / "mpirun").is_file(), reason="no mpirun beside this Python"
)


@mpirun
def test_two_real_runs_give_a_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    scaling.measure("lenet", "2,1", "mpirun -n {ranks}", out, ["--steps", "4", "--batch-size", "16"])
    rows = list(csv.DictReader((out / "curve.csv").read_text().splitlines()))
    assert [(row["ranks"], row["steps"], row["batch_size"]) for row in rows] == [
        ("1", "3", "16"),
        ("2", "3", "16"),
    ]
    assert float(rows[1]["bytes_sent"]) > 4 * 431080 > float(rows[0]["bytes_sent"])
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "command: mpitrain scaling lenet --ranks 2,1" in (out / "curve.txt").read_text()
    shown = capsys.readouterr().out
    assert shown.startswith("1 rank: ")
    assert "~2\n" in shown
    assert not (out / "ranks-1" / "checkpoints").exists()
    with pytest.raises(UserError, match="a measurement in it already"):
        scaling.measure("lenet", "1", "mpirun -n {ranks}", out, [])


@mpirun
def test_a_failing_run_ends_it_with_its_words_and_code_and_keeps_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"with 2 ranks: .*1") as caught:
        scaling.measure("lenet", "1,2", "mpirun -n {ranks}", out, ["--steps", "3", "--batch-size", "1"])
    assert caught.value.exit_code == 2
    assert [row["ranks"] for row in csv.DictReader((out / "curve.csv").read_text().splitlines())] == ["1"]
    assert (
        str(caught.value).split(" (all of it: ")[0].split(": ", 1)[1].strip()
        in (out / "ranks-2.stderr").read_text()
    )


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_ranks_too(number: signal.Signals, tmp_path: Path) -> None:
    started = tmp_path / "started"
    ranks = f"import os, time, pathlib; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    launcher = shlex.join([sys.executable, "-c", ranks, "{ranks}"])
    words = [sys.executable, "-m", "mpitrain", "scaling", "lenet", "--ranks", "1", "--launcher", launcher]
    process = subprocess.Popen([*words, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + 30
        while not (started.exists() and started.read_text()):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(number)
        assert process.communicate(timeout=30)[1].strip() == "mpitrain: interrupted"
    finally:
        process.kill()
    assert process.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_launcher_that_lies_about_a_broken_run_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="without a word, exit code 0") as caught:
        scaling.measure("lenet", "1", "true {ranks}", tmp_path / "out", [])
    assert caught.value.exit_code == 1


def test_what_is_drawn_needs_no_screen_and_no_second_point(tmp_path: Path) -> None:
    for network in ("lenet", "vgg16", "resnet18"):
        scaling.draw(network, [replace(at(2, 0.5), cores=2)], tmp_path / f"{network}.png")
        assert (tmp_path / f"{network}.png").stat().st_size > 10_000


def test_a_run_directory_is_a_point(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events(1, [0.5])))
    (tmp_path / "config.toml").write_text('[ranks]\nhosts = ["a/0"]\n')
    assert scaling.read_point(tmp_path).seconds == 0.5
