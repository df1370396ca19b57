"""Figure 6 left: LeNet on 1 to 8 ranks, batch 120, on the cores of this machine."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Side, cores

from mpitrain.commands import curve, scaling
from mpitrain.commands.curve import Point, counted
from paper.sheet import Sheet, middle, short
from paper.task import Found, Options

TITLE = "Figure 6 left: LeNet, batch 120, by number of ranks"
RANKS = (1, 2, 3, 4, 5, 6, 8)
"""Batch 120 divides equally into each."""
STEPS = 100
LIBRARY = re.compile(r" \([^()]*libmpi[^()]*\)")
"""Where the library of MPI lies is nobody else's concern."""


def _ranks(options: Options) -> Sequence[int]:
    return RANKS[:2] if options.small else RANKS


def count(options: Options) -> int:
    return len(_ranks(options))


def measure(options: Options, found: Found) -> Iterator[dict[str, Any]]:
    """One a number of ranks: each rank has a core of its own while there are any."""
    with Side(sys.executable, "side_mpitrain.py") as ours:
        found["ours"] = ours("open", device=options.device)
    steps = 3 if options.small else STEPS
    found["n"] = steps
    more = ["--steps", str(steps + 1), "--epochs", "100", "--device", options.device]
    for ranks in _ranks(options):
        found_one = point("lenet", ranks, launcher(ranks), more)
        words = ["--batch-size", str(scaling.BATCH_SIZE["lenet"]), *more]
        yield {
            **asdict(found_one),
            "where": LIBRARY.sub("", found_one.where),
            "command": f"{launcher(ranks, shown=True)} mpitrain lenet {shlex.join(words)}".replace(
                "{ranks}", str(ranks)
            ),
        }


def launcher(ranks: int, shown: bool = False) -> str:
    """Starts {ranks} ranks on as many of this machine's cores, if it has so many."""
    beside = Path(sys.executable).with_name("mpirun")
    mpirun = "mpirun" if shown or not beside.is_file() else str(beside)
    start = f"{mpirun} -n {{ranks}}"
    if ranks >= cores() or shutil.which("taskset") is None:
        return start
    few = sorted(os.sched_getaffinity(0))[:ranks]
    return f"taskset -c {','.join(map(str, few))} {start}"


def point(network: str, ranks: int, start: str, options: Sequence[str]) -> Point:
    """One run of `mpitrain scaling`, which shows nothing."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        scaling.measure(network, str(ranks), start, Path(folder) / "runs", options)
        return scaling.read_point(Path(folder) / "runs" / f"ranks-{ranks}")


def brief(row: Mapping[str, Any]) -> str:
    return f"{counted(row['ranks'], 'rank')}: {1e3 * row['seconds']:.3g} ms a step"


def _points(found: Found) -> list[Point]:
    return [
        Point(**{name: value for name, value in row.items() if name != "command"})
        for row in found["rows"]
    ]


def sheets(found: Found) -> Sequence[Sheet]:
    points = _points(found)
    rows = [
        (
            str(one.ranks),
            str(one.cores or "-"),
            middle((one.fastest, one.seconds, one.slowest), 1e3),
            short(one.images_per_second),
            f"{one.speed_up(points[0]):.2f}",
            str(min(one.ranks, one.cores or one.ranks)),
            f"{one.exchange_share:.0%}",
            f"about {one.ranks}",
        )
        for one in points
    ]
    headings = (
        "ranks", "cores", "ms a step", "images/s", "speed-up", "cores allow", "in the exchange",
        "the paper's tablets",
    )  # fmt: skip
    notes = (
        f"Median (fastest to slowest) of {counted(points[0].steps, 'step')} of one run, without "
        "its first one.",
        f"All ranks together have {counted(found['machine']['cores'], 'core')}; each rank has one "
        "of its own while there are any.",
        f"{points[-1].where}.",
        *(f"`{row['command']}`" for row in found["rows"][:1] + found["rows"][-1:]),
    )
    return [Sheet(TITLE, headings, rows, notes, words=0)]


def draw(found: Found, path: Path) -> None:
    curve.draw("lenet", _points(found), path)
