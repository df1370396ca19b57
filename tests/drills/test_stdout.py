"""Stdout that is closed or full ends no training; what only prints says why it could not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from launcher import Ended, Launch

COMMAND = f"{sys.executable} -m mpitrain"
TRAINING_GOES_ON = ": training goes on, and log.jsonl has every step"


def through_a_shell(launch: Launch, words: str, out: Path | None = None) -> Ended:
    """A command line of bash's, which ends with the code of its first part."""
    line = f"{words}; exit ${{PIPESTATUS[0]}}"
    ended = launch(program=["bash", "-c", line])
    return Ended(ended.code, ended.out, ended.err, ended.seconds, ended.finished, out)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("| head -1", ["Broken pipe"]),
        ("--json | head -1", ["Broken pipe"]),
        ("> /dev/full", ["No space left on device"]),
        (">&-", []),
        (">&- 2>&- <&-", []),
    ],
)
def test_a_training_goes_on(launch: Launch, tmp_path: Path, where: str, said: list[str]) -> None:
    """`head` ends after a line, long before the run does."""
    out = tmp_path / "run"
    ended = through_a_shell(launch, f"{COMMAND} lenet --steps 20 --out {out} {where}", out)
    assert ended.code == 0, ended.err
    assert ended.sentences == [
        f"mpitrain: stdout cannot be written ({why}){TRAINING_GOES_ON}" for why in said
    ]
    assert (ended.end["exit"], ended.end["step"]) == (0, 20)


@pytest.mark.parametrize("words", ["summary lenet", "--help", "lenet --help"])
def test_what_only_prints_fails_in_a_sentence(launch: Launch, words: str) -> None:
    ended = through_a_shell(launch, f"{COMMAND} {words} > /dev/full")
    assert ended.code == 1
    assert ended.sentence() == "mpitrain: stdout cannot be written: No space left on device"


def test_a_pipe_that_nobody_reads_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "mpitrain", "lenet", "--help"]
    ended = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert ended.returncode == 1
    assert ended.stderr == "mpitrain: stdout cannot be written: Broken pipe\n"
