"""Show a run to the person who watches it: lines, and on a terminal a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from mpitrain.job.plain import plain


class Display:
    """Prints lines on stdout, unless it is silent."""

    def __init__(self, silent: bool = False) -> None:
        self._silent = silent
        self._shown = 0.0
        self._progress: Any = None
        self._task: Any = None

    def say(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if not self._silent:
            line = plain(line)
            if self._progress is not None:
                self._progress.console.print(line, highlight=False, soft_wrap=True, markup=False)
            else:
                print(line, flush=True)

    def begin(self, step: int, steps: int) -> None:
        """Start to show progress: a bar on a terminal, else a line now and then."""
        # Under Open MPI a rank's stdout is a terminal even if mpirun's is a file, but its stderr is
        # not.
        if self._silent or not (sys.stdout.isatty() and sys.stderr.isatty()):
            return
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
        )
        self._progress = progress.Progress(*columns, redirect_stderr=False)
        self._task = self._progress.add_task("training", total=steps, completed=step)
        self._progress.start()

    def step(self, done: int, brief: str, line: Callable[[], str], whole: bool) -> None:
        """Show that a step is done. The progress bar shows `brief`.

        `line` is printed if `whole` (the end of an epoch); without a progress bar also every few
        seconds.
        """
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=brief)
        if whole or (self._progress is None and time.monotonic() - self._shown > 5):
            self.say(line())
            self._shown = time.monotonic()

    def close(self) -> None:
        """Remove the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
