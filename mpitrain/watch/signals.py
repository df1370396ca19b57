"""Ask a training to end by a signal: it is noted, agreed upon at the end of a step, and answered
with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from mpitrain.watch import witness

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stop:
    """Whether a signal has asked this process to end. Outside the main thread, where Python sets no
    handlers, none ever does."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the signals, and take them back: the LLVM in an OpenCL runtime seizes SIGUSR1 when
        it first compiles, and drops it."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.signal(number, self._note)
                self._before.setdefault(number, before)

    def leave(self) -> None:
        """Give the signals the meaning that they had before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        witness.done()  # a launcher that ends the job says so first; it needs no second cause


def ignore() -> None:
    """Let no signal change the code of a process that is leaving: srun ends the other ranks when
    the first has left with an error, and hands on the highest code; a job that looks for 75 would
    find SIGTERM's 143."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
