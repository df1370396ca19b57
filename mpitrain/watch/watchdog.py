"""End a job in which a rank makes no progress; MPI itself would wait for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from mpitrain.job.errors import STALLED
from mpitrain.watch import witness
from mpitrain.watch.witness import last_words

GRACE = 3.0
"""Seconds after the abort until the process ends itself, if it is still there."""


class Watchdog:
    """Calls `abort` if this rank reports no progress for `limit` seconds, of those in which the
    process was let run."""

    def __init__(self, rank: int, limit: float, abort: Callable[[int], None]) -> None:
        self.phase, self.step = "start", 0
        self._rank, self._limit, self._abort = rank, limit, abort
        self._since = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def at(self, phase: str, step: int | None = None) -> None:
        """Report progress: a phase of a step begins, or goes on."""
        self.phase = phase
        if step is not None:
            self.step = step
        self._since = time.monotonic()
        witness.note(f"{self.phase} at step {self.step}")

    def stop(self) -> None:
        """Stop watching: the work is done."""
        self._ended.set()

    def _watch(self) -> None:
        nap, looked = min(1.0, self._limit / 4), self._since
        while not self._ended.wait(nap):
            now = time.monotonic()
            # A process that was stopped itself, as SLURM suspends a job, has seen no standstill.
            self._since = min(now, self._since + max(0.0, now - looked - 2 * nap))
            looked = now
            if now - self._since > self._limit:
                absent = witness.absent()
                last_words(
                    f"{witness.whom(self._rank)}: no progress for {self._limit:g} s in "
                    f"{self.phase} at step {self.step}; "
                    f"{absent + '; ' if absent else ''}ending the job (--stall-seconds)"
                )
                threading.Timer(GRACE, os._exit, [STALLED]).start()
                self._abort(STALLED)
                return
