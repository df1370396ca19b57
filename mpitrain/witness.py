"""A small process beside each rank that speaks when the rank cannot: killed, at fault in native code, out of memory, or stopped.

It shares a line of memory with the rank, which keeps there what it is doing, and a pipe, which ends when the rank does. Of the ranks of
a host the first to die is the cause, the launcher kills the others: whoever binds a name first speaks, and the rest are silent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

LONGEST = 240
"""Bytes of the line."""
HOLD = 1.0
"""Seconds for which the name stays taken, while the launcher kills the other ranks."""
LOOK = 0.2
"""Seconds between two looks whether the rank has been stopped."""
MOST = 1 << 16
"""No file descriptor has a higher number so early."""
SPOKEN, DONE = b"s", b"d"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
"""They are meant for the rank."""

_line: mmap.mmap | None = None
_pipe = -1
_who = "a rank"
_doing = ""


def call() -> None:
    """Start the witness of this process: before there are threads, and once. Nothing happens where there is no Linux."""
    global _line, _pipe
    if sys.platform != "linux" or _line is not None:
        return
    faulthandler.enable()
    rank, launcher = os.getpid(), os.getppid()
    line = mmap.mmap(-1, LONGEST)
    ears, mouth = os.pipe()
    if os.fork() == 0:
        os.close(mouth)
        try:
            _stand_by(rank, launcher, line, ears)
        finally:
            os._exit(0)
    os.close(ears)
    _line, _pipe = line, mouth


def who(words: str) -> None:
    """Which rank this is."""
    global _who
    _who = words


def note(doing: str) -> None:
    """What this rank is doing now."""
    global _doing
    if _line is not None and doing != _doing:
        _doing = doing
        _line[:] = f"{_who}, {doing}".encode()[:LONGEST].ljust(LONGEST, b"\0")


def spoken() -> None:
    """This rank has said itself why the job ends: the others, which will be killed, have nothing to add."""
    _tell(SPOKEN)


def done() -> None:
    """This rank ends in good order, or has been told to."""
    _tell(DONE)


def _tell(word: bytes) -> None:
    if _pipe >= 0:
        with contextlib.suppress(OSError):
            os.write(_pipe, word)


def _stand_by(rank: int, launcher: int, line: mmap.mmap, ears: int) -> None:
    os.setsid()  # launchers signal whole groups
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A launcher sees that its rank is dead when all that the rank had open is closed, here too.
    low, high = sorted((2, ears))
    for start, stop in ((0, low), (low + 1, high), (high + 1, MOST)):
        os.closerange(start, stop)
    held: socket.socket | None = None
    while True:
        heard = os.read(ears, 1) if select.select([ears], [], [], LOOK)[0] else None
        if heard == DONE:
            return
        if heard == SPOKEN:
            held = held or _first(launcher)
        elif heard == b"":
            break
        elif _is_stopped(rank) and _is_taken(launcher):
            # The others have waited for this rank as long as they may.
            _say(line, "stopped (SIGSTOP), the others waited for it")
            return
    if held is None and (held := _first(launcher)):
        _say(line, "died without a word: killed, or at fault in native code")
    if held:
        os.close(2)  # a launcher waits for the end of what its ranks say
        time.sleep(HOLD)


def _say(line: mmap.mmap, how: str) -> None:
    words = bytes(line[:]).rstrip(b"\0").decode(errors="replace")
    with contextlib.suppress(OSError):
        os.write(2, f"mpitrain: {words or 'a rank, at its start'}: {how}\n".encode())


def _first(launcher: int) -> socket.socket | None:
    """Take the name of this host's part of the job, which is the launcher's; None if another has."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0mpitrain-{launcher}")
    except OSError:
        return None
    return name


def _is_taken(launcher: int) -> bool:
    try:
        return any(
            words.endswith(f"@mpitrain-{launcher}")
            for words in Path("/proc/net/unix").read_text().splitlines()
        )
    except OSError:
        return False


def _is_stopped(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False
