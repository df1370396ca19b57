"""Table 1: operations on whole arrays, ours on the OpenCL device beside NumPy's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measure import Side, ratios, spread, take_turns

from mpitrain.commands.curve import counted
from paper import bars
from paper.published import TABLE1
from paper.sheet import Sheet, middle, short
from paper.task import Found, Options

TITLE = "Table 1: array tasks, milliseconds"
TASKS = ("T1: add", "T2: log", "T3: small product", "T4: large product")


def count(options: Options) -> int:
    return len(TASKS)


def _works(options: Options) -> list[tuple[str, str, dict[str, Any]]]:
    """Of each task what it is, what a side prepares, and with which numbers."""
    most = 50 if options.small else 1000
    rows = {"a_lies": "rows", "b_lies": "rows"}
    square = {"rows": most, "columns": most}
    return [
        (f"{most}x{most}", "elementwise", {"operation": "add", **square}),
        (f"{most}x{most}", "elementwise", {"operation": "log", **square}),
        (f"{most}x100 by 100x10", "product", {"m": most, "n": 10, "k": 100, **rows}),
        (f"{most}x{most} by {most}x{most}", "product", {"m": most, "n": most, "k": most, **rows}),
    ]


def measure(options: Options, found: Found) -> Iterator[dict[str, Any]]:
    """One a task: ours with a wait after each operation, on arrays that are on the device; the same
    with operands copied there before and the result back after; and NumPy's into an array that
    is there already, as ours."""
    with (
        Side(sys.executable, "side_mpitrain.py") as ours,
        Side(sys.executable, "side_numpy.py") as theirs,
    ):
        found["ours"], found["numpy"] = ours("open", device=options.device), theirs("open")
        for task, (size, kind, numbers) in zip(TASKS, _works(options), strict=True):
            copied = {"copied": True} if kind == "product" else {}
            difference = ours(kind, **numbers, **copied)
            theirs(kind, **numbers)
            a, b = take_turns(
                partial(ours, "time", name=f"{kind} alone"),
                partial(theirs, "time", name=kind),
                options.n,
            )
            both_ways = [ours("time", name=f"{kind} copied") for _ in range(options.n)]
            yield {
                "task": task,
                "size": size,
                "ours": {"seconds": spread(a)},
                "ours_copied": {"seconds": spread(both_ways)},
                "numpy": {"seconds": spread(b)},
                "ratio": ratios(a, b),
                "largest_difference": difference,
            }


def brief(row: Mapping[str, Any]) -> str:
    ours, theirs = (1e3 * row[side]["seconds"][1] for side in ("ours", "numpy"))
    return f"{row['task']}: {ours:.3g} ms, NumPy {theirs:.3g}"


HERE = (("ours", "mpitrain"), ("ours_copied", "mpitrain, copied in and out"), ("numpy", "NumPy"))


def sheets(found: Found) -> Sequence[Sheet]:
    rows = [(where, library, *map(short, times)) for where, library, times in TABLE1]
    for side, name in HERE:
        rows.append(("here", name, *(middle(row[side]["seconds"], 1e3) for row in found["rows"])))
    ratio = tuple(middle(row["ratio"]) for row in found["rows"])
    rows.append(("here", "NumPy's time / mpitrain's", *ratio))
    headings = ("where", "library", *(f"{row['task']}, {row['size']}" for row in found["rows"]))
    notes = (
        f"Here: median (minimum to maximum) of {counted(found['n'], 'turn')}, milliseconds.",
        "The text does not say whether the paper's times hold copies to the device and back.",
    )
    return [Sheet(TITLE, headings, rows, notes, words=2)]


def draw(found: Found, path: Path) -> None:
    panels: dict[str, list[bars.Bar]] = {}
    for place, row in enumerate(found["rows"]):
        panel: list[bars.Bar] = [
            (f"{where}, {library}", times[place], "paper") for where, library, times in TABLE1
        ]
        for side, name in reversed(HERE):
            kind = "peer" if side == "numpy" else "ours"
            panel.append((name, 1e3 * row[side]["seconds"][1], kind))
        panels[f"{row['task']}, {row['size']}"] = panel
    names = {"paper": "the paper", "peer": "NumPy here", "ours": "mpitrain here"}
    bars.draw(panels, "ms", names, path, foot=bars.hardware(found))
