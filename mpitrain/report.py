"""What a run tells the world: errors with a sentence, exit codes, log.jsonl, and the display on rank 0."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from mpitrain import witness

DONE = 0
FAILED = 1
WRONG_USE = 2
STOPPED = 75
"""A signal asked for the end and a checkpoint is written; SLURM requeues on it (sysexits' EX_TEMPFAIL)."""
STALLED = 86
"""The watchdog ended a job in which nothing moved."""
FLUSH = 10.0
"""Seconds between two moments at which TensorBoard sees what is new."""
STEP_SECONDS = 0.1
"""Between two steps that TensorBoard sees, at least; log.jsonl has them all."""
LINGER = 0.5
"""Seconds for the last words to arrive: launchers hand on a rank's stderr, and drop what is on its way when the job is aborted."""


class MpitrainError(Exception):
    """Something to tell the user in one sentence."""

    exit_code = FAILED
    agreed = False
    """Whether every rank of the job raises the same error at the same place, so that all can leave in good order."""


class UserError(MpitrainError):
    """The command, the data or the network given cannot work: nothing has been computed or overwritten."""

    exit_code = WRONG_USE


class RunError(MpitrainError):
    """The run was sound and something failed on the way."""


E = TypeVar("E", bound=MpitrainError)


def agreed(error: E) -> E:
    """Mark an error that every rank raises at the same place: nobody needs to be told by an abort."""
    error.agreed = True
    return error


def last_words(line: str) -> None:
    """Say on stderr why this rank is about to abort the job, and return when the launcher has had time to hand it on."""
    witness.spoken()
    sys.stderr.write(
        f"mpitrain: {line}\n"
    )  # print() would write the line's end by itself, behind other ranks' lines
    sys.stderr.flush()
    time.sleep(LINGER)


class Reporter:
    """Rank 0's voice: events go to log.jsonl, and to the terminal as a display or as JSON. Other ranks get a silent one."""

    def __init__(self, folder: Path | None, json_lines: bool = False, quiet: bool = False) -> None:
        """folder: the run directory (None: no files and no words). An existing log is appended to. Raises RunError if the disk refuses."""
        self._json, self._quiet = json_lines, quiet or folder is None
        self._log: IO[str] | None = None
        self._board: _Board | None = None
        self._shown = 0.0
        if folder is not None:
            self._path = folder / "log.jsonl"
            try:
                self._log = _append(self._path)
                self._board = _tensorboard(folder)
            except OSError as error:
                raise RunError(
                    f"{error.filename or folder} cannot be written: {error.strerror or error}"
                ) from error
        self._progress: Any = None
        self._task: Any = None

    def say(self, line: str) -> None:
        """A line for the person who watches."""
        if not self._quiet and not self._json:
            if self._progress is not None:
                self._progress.console.print(line, highlight=False, soft_wrap=True, markup=False)
            else:
                print(line, flush=True)

    def event(self, name: str, **facts: Any) -> None:
        """One line of log.jsonl, and of stdout with --json; numbers also go to TensorBoard where its writer is installed.

        Raises RunError if the disk refuses.
        """
        if self._log is None:
            return
        line = json.dumps({"event": name, "time": round(time.time(), 3), **facts})
        try:
            self._log.write(line + "\n")
            self._log.flush()
            if self._board is not None and name in ("step", "evaluate"):
                self._board.add(name, facts)
        except OSError as error:
            raise RunError(f"{self._path} cannot be written: {error.strerror or error}") from error
        if self._json:
            print(line, flush=True)

    def check_place(self) -> None:
        """Raise RunError if the run directory's disk has been unmounted: the log can still be written to, and what is new would lie elsewhere."""
        if self._log is None:
            return
        try:
            same = os.path.samestat(os.fstat(self._log.fileno()), self._path.stat())
        except OSError:
            same = False
        if not same:
            raise RunError(f"{self._path} is not there any more, as if its disk had been unmounted")

    def begin(self, step: int, steps: int) -> None:
        """Show how far the run is: a moving bar on a terminal, else a line now and then."""
        # Open MPI gives ranks a terminal as stdout even where its own is a file; their stderr it never does.
        if self._quiet or self._json or not (sys.stdout.isatty() and sys.stderr.isatty()):
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
        """A step is done. On a terminal the bar says `brief`; `line` is said for good when `whole` (the end of an epoch), and without
        a terminal also every few seconds."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=brief)
        if whole or (self._progress is None and time.monotonic() - self._shown > 5):
            self.say(line())
            self._shown = time.monotonic()

    def close(self) -> None:
        """End the display and the files."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        with contextlib.suppress(
            OSError
        ):  # every event has been flushed; a disk that refused one has been named
            if self._log is not None:
                self._log.close()
            if self._board is not None:
                self._board.close()
        self._log = self._board = None


def _append(path: Path) -> IO[str]:
    """A log opened to go on with; half a line, which a killed run may leave at its end, is cut off."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return path.open("a")


class _Board:
    """A file of TensorBoard's events, written by the main thread.

    tensorboardX's own SummaryWriter writes in a thread that swallows write errors.
    """

    def __init__(self, folder: Path, kinds: tuple[Any, Any, Any]) -> None:
        writer, self._event, self._summary = kinds
        self._writer = writer(str(folder / "events"))
        self._flushed = self._stepped = 0.0

    def add(self, name: str, facts: Mapping[str, Any]) -> None:
        """The numbers of a step or an evaluation; of steps that follow each other fast only some."""
        now = time.monotonic()
        if name == "step" and now - self._stepped < STEP_SECONDS:
            return
        self._stepped = now if name == "step" else self._stepped
        values = [
            self._summary.Value(tag=f"{name}/{key}", simple_value=facts[key])
            for key in ("loss", "lr", "images_per_second", "top1", "top5")
            if key in facts
        ]
        summary = self._summary(value=values)
        self._writer.write_event(self._event(wall_time=time.time(), step=facts["step"], summary=summary))
        if now - self._flushed > FLUSH:
            self._writer.flush()
            self._flushed = now

    def close(self) -> None:
        self._writer.close()


def _tensorboard(folder: Path) -> _Board | None:
    """A writer of events.* files if `mpitrain[plots]` is installed, else None."""
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError:
        return None
    return _Board(folder, (EventsWriter, Event, Summary))
