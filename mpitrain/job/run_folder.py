"""The run directory: made for one run alone, and held by it while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from mpitrain.job.errors import UserError

PATIENCE_SECONDS = 3.0
"""For the rank 0 of a killed job to be gone, where the next job starts at once."""
NAP_SECONDS = 0.05
LOCK = ".lock"


class Hold:
    """A lock on a run directory. The system drops it with the process, however that ends."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def take(self, folder: Path) -> None:
        """Lock `folder`. Raises UserError that names the run that holds it."""
        file = (folder / LOCK).open("a+")
        limit = time.monotonic() + PATIENCE_SECONDS
        while not _locked(file):
            if time.monotonic() > limit:
                file.seek(0)
                holder = file.read(200).strip() or "unknown"
                file.close()
                raise UserError(
                    f"--out {folder}: a run is in it at this moment ({holder}); another --out "
                    "starts beside it"
                )
            time.sleep(NAP_SECONDS)
        self._file = file

    def sign(self) -> None:
        """Write down who holds it, for the one who is refused."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
            self._file.flush()

    def leave(self) -> None:
        """Let the next run in."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
                self._file.close()
        self._file = None


def _locked(file: IO[str]) -> bool:
    """Whether the lock is ours now, or the file system has none to give."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return True
    return True


def holder(folder: Path) -> str | None:
    """The process that holds a run directory, in words; empty where none does.

    None where this cannot be told: there is no lock, the file system has none to give, or the
    process that took it last neither let it go nor ran on this host.
    """
    try:
        with (folder / LOCK).open() as file:
            said = file.read(200).strip()
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return said or "unknown"
    except (OSError, ValueError):
        return None
    return "" if not said or said.endswith(f" on {os.uname().nodename}") else None


def make_new(path: Path) -> Path:
    """Make a folder that was not there: `path`, or the first of path-2, path-3, ... that is
    free."""
    number, folder = 1, path
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = path.with_name(f"{path.name}-{number}")
