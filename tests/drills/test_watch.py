"""Watching a run from another process: from before it begins until it ends, however it ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launcher import Ended, Job, Launch

from mpitrain.commands import watch
from mpitrain.job.errors import DONE, FAILED, STOPPED, UserError
from mpitrain.job.run_folder import Hold


def test_a_run_is_watched_from_before_its_start_to_its_end(launch: Launch, tmp_path: Path) -> None:
    out = tmp_path / "run"
    watcher = subprocess.Popen(
        [*launch.mpitrain, "watch", str(out), "--every", "0.2"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def meanwhile(job: Job) -> None:
        job.wait_for_step(5)
        time.sleep(1)
        job.kill(0, signal.SIGUSR1)

    launch("lenet", "--steps", 100_000, ranks=2, out=out, meanwhile=meanwhile)
    said, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == STOPPED, said
    lines = said.splitlines()
    assert lines[0] == f"{out} is not there yet; waiting for it (Ctrl-C ends this)"
    assert lines[1].startswith("run: lenet on digits, 2 ranks")
    assert any(line.startswith("training loss: ") for line in lines)
    assert lines[-1].startswith("stopped by a signal at step")


def test_a_run_that_was_killed_is_not_waited_for(
    digits_run: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert digits_run.folder is not None
    folder = tmp_path / "killed"
    shutil.copytree(digits_run.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]))
    monkeypatch.setattr(watch, "LOST_SECONDS", 0.0)
    assert watch.watch(folder, 0.1, once=False) == FAILED
    assert "cut short at step 220" in capsys.readouterr().out


def test_a_run_that_has_begun_and_logged_nothing_is_told_from_no_run(tmp_path: Path) -> None:
    hold = Hold()
    hold.take(tmp_path)
    hold.sign()
    with pytest.raises(UserError, match=r"a run begins in it \(process \d+ on .+\) and has logged"):
        watch.watch(tmp_path, 0.1, once=True)
    hold.leave()
    with pytest.raises(UserError, match="no run directory, there is no log"):
        watch.watch(tmp_path, 0.1, once=True)


def test_a_run_that_goes_on_without_a_rank_says_so_in_a_line(
    digits_run: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert digits_run.folder is not None
    lines = (digits_run.folder / "log.jsonl").read_text().splitlines(keepends=True)
    lost = json.dumps({"event": "lost", "time": 0.0, "step": 20, "ranks": [1, 4], "left": 3})
    (tmp_path / "log.jsonl").write_text("".join([*lines[:-1], lost + "\n", lines[-1]]))
    assert watch.watch(tmp_path, 0.1, once=False) == DONE
    said = capsys.readouterr().out.splitlines()
    assert "lost ranks: ranks 1, 4 after step 20, the other 3 went on" in said
    assert said[-1] == "done after step 220 (exit code 0)"


def test_the_time_to_go_follows_from_the_last_steps(digits_run: Ended, tmp_path: Path) -> None:
    assert digits_run.folder is not None
    events = digits_run.events("step")[:100]
    start = digits_run.events("start")[0]
    (tmp_path / "log.jsonl").write_text(
        "".join(
            json.dumps(each) + "\n"
            for each in [start, *({**each, "seconds": {"total": 0.5}} for each in events)]
        )
    )
    found = watch.facts(watch.read(tmp_path), time.time())
    assert found["to go"] == "about 60.0 s of computing; 45 % of 220 steps are done"
