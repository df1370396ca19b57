"""The log of a run: log.jsonl, one JSON object a line, and TensorBoard's events beside it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from mpitrain.job.errors import RunError

FLUSH = 10.0
"""Seconds between two moments at which TensorBoard sees what is new."""
STEP_SECONDS = 0.1
"""Between two steps that TensorBoard sees, at least; log.jsonl has them all."""


class Log:
    """Events of a run, written by rank 0 alone; with `json_lines` they also go to stdout."""

    def __init__(self, folder: Path | None, json_lines: bool = False) -> None:
        """folder: the run directory; None: no log. The first event opens the log; an existing one
        is appended to."""
        self._json, self._folder = json_lines, folder
        self._log: IO[str] | None = None
        self._board: _Board | None = None
        self._deferred: Callable[[], None] | None = None

    def _open(self, folder: Path) -> IO[str]:
        """Open what the first event goes to. Raises RunError if the disk refuses."""
        self._path = folder / "log.jsonl"
        try:
            self._board = _tensorboard(folder)
            return _append(self._path)
        except OSError as error:
            raise RunError(
                f"{error.filename or folder} cannot be written: {error.strerror or error}"
            ) from error

    def event(self, name: str, **facts: Any) -> None:
        """One line of log.jsonl, and of stdout with --json; numbers also go to TensorBoard where
        its writer is installed.

        Raises RunError if the disk refuses.
        """
        if self._folder is None:
            return
        self.catch_up()
        log = self._log = self._log or self._open(self._folder)
        line = json.dumps({"event": name, "time": round(time.time(), 3), **facts})
        try:
            log.write(line + "\n")
            log.flush()
            if self._board is not None and name in ("step", "evaluate"):
                self._board.add(name, facts)
        except OSError as error:
            raise RunError(f"{self._path} cannot be written: {error.strerror or error}") from error
        if self._json:
            print(line, flush=True)

    @property
    def lacks(self) -> str:
        """What is missing of the log, in words; nothing where all is there."""
        if self._log is None or self._board is not None:
            return ""
        return "no events for TensorBoard: tensorboardX is not installed"

    def check_place(self) -> None:
        """Raise RunError if the run directory's disk has been unmounted: the log can still be
        written to, and what is new would lie elsewhere."""
        if self._log is None:
            return
        try:
            same = os.path.samestat(os.fstat(self._log.fileno()), self._path.stat())
        except OSError:
            same = False
        if not same:
            raise RunError(f"{self._path} is not there any more, as if its disk had been unmounted")

    def defer(self, action: Callable[[], None]) -> None:
        """Do what writes an event later: before the next event, or when `catch_up` is called."""
        self.catch_up()
        self._deferred = action

    def catch_up(self) -> None:
        """Do what has been deferred."""
        action, self._deferred = self._deferred, None
        if action is not None:
            action()

    def close(self) -> None:
        """Catch up, and end the files."""
        try:
            self.catch_up()
        finally:
            self._close_files()

    def _close_files(self) -> None:
        # Every event has been flushed, and a disk that refused one has been named.
        with contextlib.suppress(OSError):
            if self._log is not None:
                self._log.close()
            if self._board is not None:
                self._board.close()
        self._log = self._board = self._folder = None


def _append(path: Path) -> IO[str]:
    """A log opened to go on with; half a line, which a killed run may leave at its end, is cut
    off."""
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
        """The numbers of a step or an evaluation; of steps that follow each other fast only
        some."""
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
        self._writer.write_event(
            self._event(wall_time=time.time(), step=facts["step"], summary=summary)
        )
        if now - self._flushed > FLUSH:
            self._writer.flush()
            self._flushed = now

    def close(self) -> None:
        self._writer.close()


def _tensorboard(folder: Path) -> _Board | None:
    """A writer of events.* files if tensorboardX is installed, as it is unless somebody left it
    out."""
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError:
        return None
    return _Board(folder, (EventsWriter, Event, Summary))
