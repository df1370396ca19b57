"""Two runs at once never share a run directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from launcher import Job, Launch


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mpitrain", "lenet", "--steps", "1", "--quiet"]
    jobs = [subprocess.Popen(words, cwd=tmp_path) for _ in range(3)]
    assert [job.wait(90) for job in jobs] == [0, 0, 0]
    logs = [path.read_text() for path in tmp_path.glob("runs/lenet-*/log.jsonl")]
    assert [log.count('"event": "start"') for log in logs] == [1, 1, 1]
    assert [log.count('"event": "end"') for log in logs] == [1, 1, 1]


def test_a_folder_that_a_run_is_in_is_refused_on_every_rank(launch: Launch, tmp_path: Path) -> None:
    """The run stands still meanwhile, as one that is suspended, and goes on as if nothing had
    been."""
    out = tmp_path / "run"

    def meanwhile(job: Job) -> None:
        job.wait_for_step(1)
        again = launch("lenet", "--resume", ranks=2, out=out)
        job.kill(0, signal.SIGCONT)
        launch.ends_with(again, 2)
        assert "a run is in it at this moment (process " in again.sentence()

    words = ("lenet", "--steps", 6, "--inject", "kind=stop,rank=0,step=3,phase=forward")
    ended = launch.trains(*words, ranks=2, out=out, meanwhile=meanwhile)
    assert [len(ended.events(name)) for name in ("start", "step", "end")] == [1, 6, 1]
