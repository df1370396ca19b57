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
from mpitrain.job.errors import FAILED, STOPPED


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
    assert "waiting for it" in lines[0]
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
