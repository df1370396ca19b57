"""Where a device's time goes, kernel by kernel, by the trace of a run:

mpitrain train vgg16 --precision bf16 --trace 5 --out RUN ...
python benchmarks/kernels.py RUN/trace.json

An update that is noted from its first bucket to its last, with other kernels in between, is left
out.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

DEVICE = "device"
"""What the names of the rows begin with that kernels are in."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path, help="a run's trace.json")
    parser.add_argument("--rank", type=int, default=0)
    options = parser.parse_args()
    found = json.loads(options.trace.read_text())
    Console().print(table(found, options.rank))


def table(trace: Mapping[str, Any], rank: int) -> Table:
    """Kernels of one rank, the longest first: what a step has of each on average."""
    first, last = trace["otherData"]["steps"]
    steps = last - first + 1
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows(trace["traceEvents"], rank):
        for name, duration in innermost(row):
            times[name].append(duration)
    total = sum(map(sum, times.values())) or 1.0
    shown = Table(
        title=f"{trace['otherData']['network']}, rank {rank}: {total / steps / 1e3:.2f} ms of "
        f"kernels a step, by {steps} steps",
        title_justify="left",
    )
    for name in ("kernel", "launches", "ms", "share", "us a launch"):
        shown.add_column(name, justify="left" if name == "kernel" else "right")
    for name, each in sorted(times.items(), key=lambda item: -sum(item[1])):
        shown.add_row(
            name,
            f"{len(each) / steps:g}",
            f"{sum(each) / steps / 1e3:.3f}",
            f"{sum(each) / total:.1%}",
            f"{sum(each) / len(each):.1f}",
        )
    return shown


def rows(events: Iterable[Mapping[str, Any]], rank: int) -> Iterator[list[Mapping[str, Any]]]:
    """The spans of each of a rank's devices' rows."""
    spans: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    devices = set()
    for event in events:
        if event.get("pid") != rank:
            continue
        if event["ph"] == "M" and event["name"] == "thread_name":
            if event["args"]["name"].startswith(DEVICE):
                devices.add(event["tid"])
        elif event["ph"] == "X":
            spans[event["tid"]].append(event)
    for row in sorted(devices):
        yield spans[row]


def innermost(spans: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Name and microseconds of each span that has none inside: a layer's span has its kernels'."""
    ordered = sorted(spans, key=lambda each: (each["ts"], -each["dur"]))
    for span, following in zip(ordered, [*ordered[1:], None], strict=True):
        end = span["ts"] + span["dur"]
        holds = following is not None and following["ts"] + following["dur"] <= end + 1e-3
        if not holds:
            yield span["name"], span["dur"]


if __name__ == "__main__":
    main()
