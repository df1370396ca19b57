"""Ask a training to end by a signal or Ctrl-C: it is noted, agreed upon at the end of a step, and
answered with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from mpitrain.watch import witness

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
ECHO_SECONDS = 1.0
"""One Ctrl-C may come twice within them: the terminal sends it to every process, and a launcher
hands its own on."""
HEARD = b"mpitrain: stops after this step, with a checkpoint; Ctrl-C once more ends at once\n"


class Stop:
    """Whether a signal has asked this process to end. Outside the main thread, where Python sets no
    handlers, none ever does."""

    def __init__(self, speaks: bool = False) -> None:
        """speaks: whether this rank says on stderr that a Ctrl-C has been heard."""
        self.asked = False
        self._speaks, self._interrupted = speaks, False
        self._second_counts_from = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the signals, and take them back: the LLVM in an OpenCL runtime seizes SIGUSR1 when
        it first compiles, and drops it."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.signal(number, self._note)
                self._before.setdefault(number, before)
            self._before.setdefault(signal.SIGINT, signal.getsignal(signal.SIGINT))
            signal.signal(signal.SIGINT, self._interrupt)

    def leave(self) -> None:
        """Give the signals the meaning that they had before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        witness.done()  # a launcher that ends the job says so first; it needs no second cause

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C asks for the end; the second raises KeyboardInterrupt."""
        now = time.monotonic()
        if self._interrupted and now > self._second_counts_from:
            raise KeyboardInterrupt
        if self._interrupted:
            return
        self._interrupted, self._second_counts_from = True, now + ECHO_SECONDS
        self._note(number, frame)
        if self._speaks:
            with contextlib.suppress(OSError):  # print() may be at work in this very thread
                os.write(2, HEARD)


def ignore() -> None:
    """Let no signal change the code of a process that is leaving: srun ends the other ranks when
    the first has left with an error, and hands on the highest code; a job that looks for 75 would
    find SIGTERM's 143."""
    if threading.current_thread() is threading.main_thread():
        for number in (*SIGNALS, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
