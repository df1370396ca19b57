"""A run directory belongs to one run at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpitrain.job import run_folder
from mpitrain.job.errors import UserError
from mpitrain.job.run_folder import LOCK, Hold, holder, make_new


@pytest.fixture
def holds() -> Iterator[tuple[Hold, Hold]]:
    both = Hold(), Hold()
    yield both
    for hold in both:
        hold.leave()


def test_the_second_to_come_is_refused_and_told_who_is_there(
    tmp_path: Path, holds: tuple[Hold, Hold], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "PATIENCE_SECONDS", 0.1)
    first, second = holds
    first.take(tmp_path)
    first.sign()
    with pytest.raises(UserError, match=f"a run is in it at this moment .process {os.getpid()} on"):
        second.take(tmp_path)
    first.leave()
    second.take(tmp_path)


DIES = """
import os, sys, pathlib
from mpitrain.job.run_folder import Hold

hold = Hold()
hold.take(pathlib.Path("."))
"""


def test_a_lock_goes_with_its_process(tmp_path: Path, holds: tuple[Hold, Hold]) -> None:
    words = [sys.executable, "-c", f"{DIES}os._exit(9)"]
    assert subprocess.run(words, cwd=tmp_path, check=False).returncode == 9
    holds[0].take(tmp_path)


def test_the_holder_is_named_while_it_holds(tmp_path: Path, holds: tuple[Hold, Hold]) -> None:
    assert holder(tmp_path) is None
    first, second = holds
    first.take(tmp_path)
    first.sign()
    assert holder(tmp_path) == f"process {os.getpid()} on {os.uname().nodename}"
    first.leave()
    assert holder(tmp_path) == ""
    second.take(tmp_path)  # the look at it has left no lock behind


def test_what_another_host_left_does_not_tell_whether_it_still_runs(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(f"process 1 on {os.uname().nodename}\n")
    assert holder(tmp_path) == ""
    (tmp_path / LOCK).write_text("process 1 on another-host\n")
    assert holder(tmp_path) is None


def test_a_new_folder_is_never_one_that_was_there(tmp_path: Path) -> None:
    made = [make_new(tmp_path / "runs" / "lenet-20261128-203000") for _ in range(3)]
    assert [path.name for path in made] == [
        "lenet-20261128-203000",
        "lenet-20261128-203000-2",
        "lenet-20261128-203000-3",
    ]
