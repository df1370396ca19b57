"""Every distinct convolution of a network against PyTorch, a pass at a time, and how much of the
whole step it takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from measure import Side, rates, ratios, spread, take_turns
from rich.table import Table
from steps import BATCHES, LAYOUTS, three

PASSES = ("forward", "backward data", "backward filter")
STEPS = 3
"""Runs of the whole step of which the median is taken."""
LARGE, SLOW = 0.10, 0.60
"""A line is marked that takes at least this share of the step, at less than this share of the
peak."""


def rows(
    networks: Sequence[str], ours: Side, theirs: Side, n: int, peak: float
) -> Iterator[dict[str, Any]]:
    """One a convolution and pass."""
    for network in networks:
        batch = BATCHES[network]
        ours("step", network=network, batch=batch)
        step = statistics.median([ours("time", name="step") for _ in range(STEPS + 1)][1:])
        for case in ours("convolutions", network=network):
            yield from _convolution(network, case, step, ours, theirs, n, peak)


def _convolution(
    network: str,
    case: Mapping[str, Any],
    step: float,
    ours: Side,
    theirs: Side,
    n: int,
    peak: float,
) -> Iterator[dict[str, Any]]:
    numbers = {
        name: case[name]
        for name in ("shape", "channels", "kernel", "stride", "padding", "groups", "bias", "data")
    }
    batch, data = BATCHES[network], case["data"]
    algorithms = ours("convolution", network=network, node=case["node"], batch=batch, data=data)
    theirs("forget")
    given = {name: value for name, value in numbers.items() if name != "data"}
    for layout in LAYOUTS:
        theirs("convolution", **given, batch=batch, layout=layout)
    for name in PASSES:
        if name == "backward data" and not data:
            continue  # nobody asks for the gradient of the images
        tried = {layout: theirs("time", name=f"{name} {layout}") for layout in LAYOUTS}
        layout = min(LAYOUTS, key=tried.__getitem__)
        a, b = take_turns(
            partial(ours, "time", name=name), partial(theirs, "time", name=f"{name} {layout}"), n
        )
        yield {
            "network": network,
            "batch": batch,
            "node": case["node"],
            "count": case["count"],
            **numbers,
            "pass": name,
            "algorithm": algorithms.get(name),
            "layout": layout,
            "ours": {"seconds": spread(a), "gflops": rates(case["flops"] * batch / 1e9, a)},
            "pytorch": {"seconds": spread(b), "gflops": rates(case["flops"] * batch / 1e9, b)},
            "ratio": ratios(a, b),
            **shares(statistics.median(a), case["flops"] * batch, case["count"], step, peak),
            "step_seconds": step,
        }


def shares(seconds: float, work: float, count: int, step: float, peak: float) -> dict[str, Any]:
    """Of the device's peak (GFLOPS) and of the step (seconds) for a pass that occurs `count` times;
    whether to look at it."""
    of_peak, of_step = work / seconds / 1e9 / peak, count * seconds / step
    return {
        "of_peak": round(of_peak, 4),
        "of_step": round(of_step, 4),
        "marked": of_step >= LARGE and of_peak < SLOW,
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What was found, a table a network and a pass a line."""
    networks = dict.fromkeys(row["network"] for row in found["rows"])
    return [
        _table([row for row in found["rows"] if row["network"] == each], found["n"], found["peak"])
        for each in networks
    ]


def _table(rows: Sequence[Mapping[str, Any]], n: int, peak: Mapping[str, Any]) -> Table:
    first = rows[0]
    title = (
        f"Convolutions of {first['network']}, batch {first['batch']}, n = {n}: "
        "GFLOPS, minimum / median / maximum"
    )
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in ("convolution", "times", "pass", "algorithm", "ours", "PyTorch", "its layout"):
        table.add_column(
            name, justify="right" if name in ("times", "ours", "PyTorch") else "left", no_wrap=True
        )
    for name in ("PyTorch's s / ours", "of peak", "of step", ""):
        table.add_column(name, justify="right", no_wrap=True)
    node = None
    for row in rows:
        if row["node"] != node:
            table.add_section()
        table.add_row(
            describe(row) if row["node"] != node else "",
            str(row["count"]) if row["node"] != node else "",
            row["pass"],
            row["algorithm"] or "-",
            three(row["ours"]["gflops"]),
            three(row["pytorch"]["gflops"]),
            row["layout"],
            three(row["ratio"]),
            f"{row['of_peak']:.0%}",
            f"{row['of_step']:.1%}",
            "<" if row["marked"] else "",
            style="bold" if row["marked"] else None,
        )
        node = row["node"]
    ours = sum(row["of_step"] for row in rows)
    theirs = (
        sum(row["count"] * row["pytorch"]["seconds"][1] for row in rows) / first["step_seconds"]
    )
    table.caption = (
        f"GFLOPS and peak ({peak['gflops']:.0f} GFLOPS, {peak['source']}) count a direct "
        "convolution. Our whole step takes "
        f"{first['step_seconds']:.3g} s, {ours:.0%} of it in these; PyTorch's would take "
        f"{theirs:.0%} of it. "
        f"<: at least {LARGE:.0%} of the step under {SLOW:.0%} of peak."
    )
    return table


def describe(row: Mapping[str, Any]) -> str:
    """A convolution in a cell: "features.2: 64x224x224 -> 64, 3x3"."""
    shape, kernel = ("x".join(map(str, row[key])) for key in ("shape", "kernel"))
    text = f"{row['node']}: {shape} -> {row['channels']}, {kernel}"
    if set(row["stride"]) != {1}:
        text += f" / {row['stride'][0]}"
    return text + (f", {row['groups']} groups" if row["groups"] > 1 else "")
