"""Faults on demand, so that tests see what a real one does: `--inject
kind=raise,rank=1,step=3,phase=forward`."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mpitrain.job.errors import UserError
from mpitrain.runtime.array import Array

KINDS: dict[str, Callable[[], object]] = {
    "raise": lambda: _fail(),
    "exit": lambda: sys.exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "segv": lambda: ctypes.string_at(0),
    "memory": lambda: _use_up(),
    "oom": lambda: _outgrow(),
    "nan": lambda: None,
    "flip": lambda: None,
}


def _fail() -> None:
    raise ValueError("injected fault")


def _use_up() -> None:
    """All memory that the system grants, of which there is no more than now and a little: what asks
    next gets none either."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + (8 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    taken = []
    while True:
        taken.append(bytearray(1 << 20))


MOST = 4 << 30
"""Bytes that kind=oom takes at most, where no limit is set."""


def _outgrow() -> None:
    """More memory than there is, until the system kills this process for it, and no other."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    taken = [bytearray(b"1") * (1 << 20) for _ in range(MOST >> 20)]
    raise MemoryError(f"{len(taken)} MiB were there, and no limit of memory was met")


class Fault:
    """Strikes this rank once, in one phase of one step, if the text says so. `delay=S` in it slows
    messages instead (see mpi/delay.py), `slow=S` the rank's computing."""

    def __init__(self, text: str, rank: int) -> None:
        facts = dict(pair.partition("=")[::2] for pair in text.split(",") if pair)
        try:
            if set(facts) - {"kind", "rank", "step", "phase", "delay", "slow"}:
                raise ValueError
            self._strike = KINDS[facts.get("kind", "nan")]
            self.delay = float(facts.get("delay", 0))
            self._slow = float(facts.get("slow", 0)) if int(facts.get("rank", 0)) == rank else 0.0
            if not all(0 <= seconds < math.inf for seconds in (self.delay, self._slow)):
                raise ValueError
            self._armed = "kind" in facts and int(facts.get("rank", 0)) == rank
            self._place = facts.get("phase", "forward"), int(facts.get("step", 0))
        except (KeyError, ValueError):
            raise UserError(
                f"--inject {text}: expected kind={'|'.join(KINDS)}, rank=, step=, phase=, delay= "
                "or slow="
            ) from None
        self._is_nan, self._flips = facts.get("kind") == "nan", facts.get("kind") == "flip"

    def drag(self, images: int) -> None:
        """Where the text has `slow=S`, this rank takes S seconds longer for each image."""
        if self._slow:
            time.sleep(self._slow * images)

    def __call__(self, phase: str, step: int, gradient: Array | None = None) -> None:
        """Called as a phase begins. kind=nan writes one into the gradient instead of ending
        anything, kind=flip flips the lowest bit of the value in the middle of what is there: the
        gradient in phase exchange, the weights in phase compare."""
        if not self._armed or (phase, step) != self._place:
            return
        self._armed = False
        if self._is_nan and gradient is not None:
            gradient.part(0, 1).fill(float("nan"))
            gradient.device.finish()
        print(f"fault at {time.time():.3f}", file=sys.stderr, flush=True)
        if self._flips and gradient is not None:
            with gradient.host(write=True) as values:
                values[values.size // 2 :][:1].view("uint32")[:] ^= 1
        self._strike()
