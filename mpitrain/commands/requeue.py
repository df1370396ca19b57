"""How a job of SLURM ends: as the training's own log says, and in the queue again if it was
stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from mpitrain.job.errors import DONE, FAILED, STOPPED
from mpitrain.job.plain import plain
from mpitrain.job.slurm import job, restarts

LAST = 1 << 24
"""Bytes at a log's end that its last line is in: it has a hash of some 70 bytes for each rank."""
LATE = 5.0
"""Seconds that a shared disk may take to show this host what rank 0 wrote on another."""


def conclude(code: int, folder: Path | None) -> int:
    """The exit code of a job whose launcher has ended with `code`, and a requeue if it is 75.

    folder: the run directory. A launcher's code may be wrong: where a daemon dies with its host,
    Open MPI's mpirun ends with 0, and it has codes of its own for ranks that were stopped. So the
    end that this start of the job has left in the log decides; a launcher's 0 without one is a
    failure. None: the launcher's code is believed.
    """
    if folder is not None:
        code = _own(code, folder)
    if code == STOPPED:
        _requeue()
    return code


def _own(code: int, folder: Path) -> int:
    """The run's own exit code, or the launcher's where that is a failure and the log has no end."""
    limit = time.monotonic() + LATE
    while (found := end_of(folder / "log.jsonl")) is None and code == DONE:
        if time.monotonic() > limit:
            _say(f"the launcher ended with 0, but {folder}/log.jsonl has no end of this run")
            return FAILED
        time.sleep(0.2)
    if found is None:
        return code
    if found != code:
        _say(f"the launcher ended with {code}, the training with {found}")
    return found


def end_of(log: Path) -> int | None:
    """The exit code in a log's last line, if that is the end of a run of this start of the job.

    Told by numbers and not by times, because a clock may be set meanwhile.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LAST))
            event = json.loads(file.read().splitlines()[-1])
        if (event["event"], event["job"], event["restarts"]) == ("end", job(), restarts()):
            return int(event["exit"])
    except (OSError, ValueError, IndexError, KeyError, TypeError, RecursionError):
        pass
    return None


def _requeue() -> None:
    """Put this job into SLURM's queue again."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    done = subprocess.run(
        ["scontrol", "requeue", job() or ""],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        _say(f"scontrol refuses: {' '.join((done.stderr or done.stdout).split())}")


def _say(words: str) -> None:
    print(plain(f"mpitrain: {words}"), file=sys.stderr)
