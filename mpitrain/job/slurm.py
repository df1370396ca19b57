"""Which start of which job of SLURM this process belongs to."""

from __future__ import annotations

import os


def job() -> str | None:
    """The job's number, None outside of one."""
    return os.environ.get("SLURM_JOB_ID") or None


def restarts() -> int:
    """How often SLURM has started this job again."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdecimal() and len(count) < 10 else 0
