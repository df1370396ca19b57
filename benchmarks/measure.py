"""Compare two programs fairly: each side computes in a process of its own, they take turns, and the
facts go with the figures.

Only the standard library, so that a side may run in any Python.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAUSE = 0.2
"""Seconds before each timed run: a BLAS's threads spin for a while after their work, and would take
a core from the other's turn."""
LEAST = 0.1
"""Seconds for which shorter runs are repeated."""
CHOICES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that force OpenBLAS's choice of a kernel or its blocking."""


class SideError(Exception):
    """A side cannot do what it was asked; says why in a sentence."""


def seconds_of(
    work: Callable[[], Any],
    wait: Callable[[], Any] = lambda: None,
    pause: float = PAUSE,
    least: float = LEAST,
) -> float:
    """Seconds of a run, by the clock, the first one uncounted: it wakes the side up and brings its
    data back into the caches.

    Short runs are repeated. Where `work` only queues, `wait` ends them all: kernels follow each
    other in training, too, and nobody waits between them.

    Long runs too: between turns a virtual machine may give free pages back to its host, and who
    allocates in every run (PyTorch's steps of VGG16: 3 GB of page faults) pays for them once more.
    Seen: 1.2 s of system time a step in a row, 3 to 4 s after a pause of 10 s. Training is steps in
    a row.
    """
    time.sleep(pause)
    once = _seconds(work, wait, 1)
    return _seconds(work, wait, max(1, round(least / once)))


def _seconds(work: Callable[[], Any], wait: Callable[[], Any], times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - begin) / times


def take_turns(
    ours: Callable[[], float], theirs: Callable[[], float], n: int
) -> tuple[list[float], list[float]]:
    """Seconds of n turns each, A B A B ..., after one turn each that does not count (compilers,
    first touch of memory)."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(n)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def spread(values: Sequence[float], digits: int = 4) -> list[float]:
    """Minimum, median and maximum, to so many significant digits."""
    return [_round(each, digits) for each in (min(values), statistics.median(values), max(values))]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The spread of their seconds over ours, pair by pair: above 1 ours is faster."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


def rates(work: float, seconds: Sequence[float]) -> list[float]:
    """The spread of work per second."""
    return spread([work / each for each in seconds])


def _round(value: float, digits: int) -> float:
    return round(value, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0.0


def cores() -> int:
    """How many cores this process, and so each side, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """Bytes of memory this process has had resident at most. Not getrusage's figure: that starts
    from the parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Side:
    """A child process that computes when told to: `side("time", name="forward")`. It waits for its
    next turn without spinning."""

    def __init__(self, python: str, script: str) -> None:
        self.name = script
        try:
            self._process = subprocess.Popen(
                [python, str(HERE / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=_environment(os.environ),
            )
        except OSError as error:
            raise SideError(f"{python} cannot be started: {error.strerror}") from None

    def __call__(self, function: str, **arguments: Any) -> Any:
        """What the side's function returns. Raises SideError if it fails or the process has
        ended."""
        to, answers = self._process.stdin, self._process.stdout
        assert to is not None and answers is not None
        try:
            to.write(json.dumps([function, arguments]) + "\n")
            to.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideError(
                f"{self.name} ended while it should {function}, exit status {self._process.wait()}"
            )
        kind, value = json.loads(line)
        if kind == "error":
            raise SideError(value)
        return value

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """What the sides see. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE go: set for another machine or an
    older library, they hold NumPy's OpenBLAS to an old kernel, and the peer would be slower than a
    user's. Every peer gets all cores that we get."""
    kept = {name: value for name, value in given.items() if name not in CHOICES}
    return {**kept, "OPENBLAS_NUM_THREADS": str(cores()), "OMP_NUM_THREADS": str(cores())}


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """In a side's process: call what stdin asks for, a line each, and answer on stdout, which
    nobody else gets to write to."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer: list[Any]
        try:
            answer = ["value", functions[name](**arguments)]
        except SideError as error:
            answer = ["error", str(error)]
        except Exception as error:
            traceback.print_exc()
            answer = ["error", f"{Path(sys.argv[0]).name} cannot {name}: {error}"]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def circumstances(n: int) -> dict[str, Any]:
    """What a figure needs beside it, the devices and libraries excepted."""
    return {
        "command": command(sys.argv[1:]),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "n": n,
        "machine": {
            "cpu": _cpu(),
            "architecture": platform.machine(),
            "cores": cores(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
    }


def command(arguments: Sequence[str]) -> str:
    """The command to repeat it by, without where another Python or a folder lies on this
    machine."""
    shown = [
        Path(each).name if os.sep in each and not each.startswith("-") else each
        for each in arguments
    ]
    shown = [
        f"{each.partition('=')[0]}={Path(each).name}" if os.sep in each else each for each in shown
    ]  # --option=/path
    return f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(shown)}".strip()


def _commit() -> str:
    """Short name of the commit, `-dirty` where files differ from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty"],
        capture_output=True,
        text=True,
        cwd=HERE,
    )
    return found.stdout.strip() or "unknown"


def _cpu() -> str:
    """Model, family and flags that matter; cloud machines say no more than "AMD EPYC" as a
    model."""
    try:
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    except OSError:
        return platform.processor()
    facts: dict[str, str] = {}
    for name, _, value in lines:
        facts.setdefault(name.strip(), value.strip())
    wide = [
        flag for flag in ("avx2", "avx512f", "amx_tile") if flag in facts.get("flags", "").split()
    ]
    model = facts.get("model name") or platform.processor()
    if "cpu family" not in facts:
        return model
    return f"{model} (family {facts['cpu family']}, model {facts.get('model')}; {', '.join(wide)})"
