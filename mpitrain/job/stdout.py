"""Stdout that may be closed or full: `| head` closes it, and a disk fills up under `> file`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

REFUSALS = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
"""What a stream says that is closed, full or gone."""


class Unfailing:
    """A stream whose writes always succeed. The first that fails is told on stderr; from then on
    nothing is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lost = stream, False

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            action()
        except (OSError, ValueError) as error:
            self._lost = True
            discard(self._stream)
            why = getattr(error, "strerror", None) or str(error)
            with contextlib.suppress(OSError, ValueError):
                print(
                    f"mpitrain: stdout cannot be written ({why}): training goes on, and log.jsonl "
                    "has every step",
                    file=sys.stderr,
                    flush=True,
                )


@contextlib.contextmanager
def unfailing() -> Iterator[None]:
    """Let no line that somebody was to read end what is going on."""
    with contextlib.redirect_stdout(cast(TextIO, Unfailing(sys.stdout))):
        yield


def refused_by(error: OSError) -> bool:
    """Whether an error is that of a stream that was closed or is full, not of a file with a
    name."""
    return error.filename is None and error.errno in REFUSALS


def discard(stream: TextIO) -> None:
    """From now on what is written to a stream goes nowhere, also what waits in its buffer."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def open_all() -> None:
    """Give streams that the caller has closed (`>&-`) a place that takes everything: the next file
    to be opened would get their number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
