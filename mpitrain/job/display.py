"""What the person who watches a run sees: lines, and on a terminal a bar that moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from mpitrain.job.plain import plain


class Display:
    """Lines on stdout for the person who watches; a silent one says nothing."""

    def __init__(self, silent: bool = False) -> None:
        self._silent = silent
        self._shown = 0.0
        self._progress: Any = None
        self._task: Any = None

    def say(self, line: str) -> None:
        """A line for the person who watches."""
        if not self._silent:
            line = plain(line)
            if self._progress is not None:
                self._progress.console.print(line, highlight=False, soft_wrap=True, markup=False)
            else:
                print(line, flush=True)

    def begin(self, step: int, steps: int) -> None:
        """Show how far the run is: a moving bar on a terminal, else a line now and then."""
        # Open MPI gives ranks a terminal as stdout even where its own is a file; their stderr it
        # never does.
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
        """A step is done. On a terminal the bar says `brief`; `line` is said for good when `whole`
        (the end of an epoch), and without a terminal also every few seconds."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=brief)
        if whole or (self._progress is None and time.monotonic() - self._shown > 5):
            self.say(line())
            self._shown = time.monotonic()

    def close(self) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
