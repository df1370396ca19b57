"""The log of a run: log.jsonl, one JSON object a line, and TensorBoard's events beside it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mpitrain.job.errors import RunError

FLUSH_SECONDS = 10.0
"""How often TensorBoard's file is flushed."""
STEP_SECONDS = 0.1
"""At least so long between two steps in TensorBoard's file; log.jsonl has all steps."""
CHARTS = ("loss", "lr", "images_per_second", "gradient_norm", "top1", "top5")
"""Numbers of a step or an evaluation that TensorBoard's file has, besides all of a step's
seconds."""


class Log:
    """Events of a run, written by rank 0 alone; with `json_lines` they also go to stdout."""

    def __init__(self, folder: Path | None, json_lines: bool = False) -> None:
        """folder: the run directory; None: no log.

        The first event opens the log, and appends to an existing one.
        """
        self._json, self._folder = json_lines, folder
        self._log: IO[str] | None = None
        self._board: _Board | None = None
        self._deferred: Callable[[], None] | None = None
        # Who reads images ahead, in a thread, tells of those that cannot be read.
        self._lock = threading.RLock()

    def _open(self, folder: Path) -> IO[str]:
        """Open the log and TensorBoard's file. Raises RunError if they cannot be written."""
        self._path = folder / "log.jsonl"
        try:
            self._board = _tensorboard(folder)
            return _append(self._path)
        except OSError as error:
            raise RunError(
                f"{error.filename or folder} cannot be written: {error.strerror or error}"
            ) from error

    def event(self, name: str, **facts: Any) -> None:
        """Write one line to log.jsonl, and with --json to stdout.

        Numbers also go to TensorBoard if its writer is installed. Raises RunError if the log cannot
        be written.
        """
        with self._lock:
            self._event(name, facts)

    def _event(self, name: str, facts: Mapping[str, Any]) -> None:
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
        """Raise RunError if the run directory's disk has been unmounted.

        The open log can still be written to then, but new files would lie elsewhere.
        """
        if self._log is None:
            return
        try:
            same = os.path.samestat(os.fstat(self._log.fileno()), self._path.stat())
        except OSError:
            same = False
        if not same:
            raise RunError(f"{self._path} is not there any more, as if its disk had been unmounted")

    def defer(self, action: Callable[[], None]) -> None:
        """Call an action that writes an event later: before the next event, or in `catch_up`."""
        with self._lock:
            self.catch_up()
            self._deferred = action

    def catch_up(self) -> None:
        """Call the deferred action, if there is one."""
        with self._lock:
            action, self._deferred = self._deferred, None
            if action is not None:
                action()

    def close(self) -> None:
        """Catch up, and close the files."""
        try:
            self.catch_up()
        finally:
            self._close_files()

    def _close_files(self) -> None:
        # Every event has been flushed, and a failure to write one has been reported.
        with contextlib.suppress(OSError):
            if self._log is not None:
                self._log.close()
            if self._board is not None:
                self._board.close()
        self._log = self._board = self._folder = None


def _append(path: Path) -> IO[str]:
    """Open a log to append to. An incomplete last line, left by a killed run, is cut off."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return path.open("a")


class _Board:
    """A file of TensorBoard's events, written by the thread that writes the log.

    tensorboardX's own SummaryWriter writes in a thread that swallows write errors.
    """

    def __init__(self, folder: Path, kinds: tuple[Any, Any, Any]) -> None:
        writer, self._event, self._summary = kinds
        self._writer = writer(str(folder / "events"))
        self._flushed = self._stepped = 0.0

    def add(self, name: str, facts: Mapping[str, Any]) -> None:
        """Write the numbers of a step or an evaluation, but steps at most every STEP_SECONDS."""
        now = time.monotonic()
        if name == "step" and now - self._stepped < STEP_SECONDS:
            return
        self._stepped = now if name == "step" else self._stepped
        numbers = {f"{name}/{key}": facts[key] for key in CHARTS if key in facts}
        numbers |= {f"seconds/{key}": value for key, value in facts.get("seconds", {}).items()}
        summary = self._summary(
            value=[self._summary.Value(tag=tag, simple_value=each) for tag, each in numbers.items()]
        )
        self._writer.write_event(
            self._event(wall_time=time.time(), step=facts["step"], summary=summary)
        )
        if now - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = now

    def close(self) -> None:
        self._writer.close()


def _tensorboard(folder: Path) -> _Board | None:
    """A writer of events.* files if tensorboardX is installed, as it is unless somebody left it
    out."""
    try:
        with _absent("torch"):
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.proto.summary_pb2 import Summary
    except ImportError:
        return None
    return _Board(folder, (EventsWriter, Event, Summary))


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """Importing a module fails inside, unless it has been imported before: tensorboardX imports
    PyTorch where there is one, for seconds, and needs nothing of it here."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
