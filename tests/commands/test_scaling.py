"""Runs of a scaling measurement: what is asked for, how ranks are started and ended, what is
left."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_curve import events

from mpitrain.commands import scaling
from mpitrain.commands.scaling import last_words, parse_ranks, training_options
from mpitrain.job.errors import RunError, UserError


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
    assert training_options("vgg16", ["--exchange", "dynamic8"]) == [
        "--exchange",
        "dynamic8",
        "--steps",
        "6",
    ]
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
    scaling.measure(
        "lenet", "2,1", "mpirun -n {ranks}", out, ["--steps", "4", "--batch-size", "16"]
    )
    rows = list(csv.DictReader((out / "curve.csv").read_text().splitlines()))
    assert [(row["ranks"], row["steps"], row["batch_size"]) for row in rows] == [
        ("1", "3", "16"),
        ("2", "3", "16"),
    ]
    # A half of the weights at least, which rank 0 writes into shared memory for the other.
    assert float(rows[1]["bytes_sent"]) > 2 * 431080 > float(rows[0]["bytes_sent"])
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "command: mpitrain scaling lenet --ranks 2,1" in (out / "curve.txt").read_text()
    shown = capsys.readouterr().out
    assert shown.startswith("1 rank: ")
    assert "~2\n" in shown
    assert not (out / "ranks-1" / "checkpoints").exists()
    with pytest.raises(UserError, match="a measurement in it already"):
        scaling.measure("lenet", "1", "mpirun -n {ranks}", out, [])


@mpirun
def test_a_failing_run_ends_it_with_its_words_and_code_and_keeps_what_was_measured(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"with 2 ranks: .*1") as caught:
        scaling.measure(
            "lenet", "1,2", "mpirun -n {ranks}", out, ["--steps", "3", "--batch-size", "1"]
        )
    assert caught.value.exit_code == 2
    assert [
        row["ranks"] for row in csv.DictReader((out / "curve.csv").read_text().splitlines())
    ] == ["1"]
    assert (
        str(caught.value).split(" (all of it: ")[0].split(": ", 1)[1].strip()
        in (out / "ranks-2.stderr").read_text()
    )


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_ranks_too(number: signal.Signals, tmp_path: Path) -> None:
    started = tmp_path / "started"
    ranks = (
        "import os, time, pathlib; "
        f"pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    launcher = shlex.join([sys.executable, "-c", ranks, "{ranks}"])
    words = [
        sys.executable,
        "-m",
        "mpitrain",
        "scaling",
        "lenet",
        "--ranks",
        "1",
        "--launcher",
        launcher,
    ]
    process = subprocess.Popen(
        [*words, "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # pytest's workers ignore SIGINT
    )
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
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_launcher_that_lies_about_a_broken_run_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="without a word, exit code 0") as caught:
        scaling.measure("lenet", "1", "true {ranks}", tmp_path / "out", [])
    assert caught.value.exit_code == 1


def test_a_run_directory_is_a_point(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in events(1, [0.5]))
    )
    (tmp_path / "config.toml").write_text('[ranks]\nhosts = ["a/0"]\n')
    assert scaling.read_point(tmp_path).seconds == 0.5
