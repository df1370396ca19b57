"""Every distinct layer of a network, a pass at a time: convolutions against PyTorch's, all others
against the rate at which the device copies; and how much of the whole step each takes."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from measure import Side, rates, ratios, spread, take_turns
from rich.table import Table
from steps import LAYOUTS, three

CONVOLUTION = ("forward", "backward data", "backward filter")
"""Passes that have a counterpart in PyTorch."""
LARGE, SLOW = 0.10, 0.60
"""A line is marked that takes at least this share of the step, at less than this share of the
peak."""
LEAST = 32 << 20
"""Bytes below which a pass over memory is left out: on a GPU it is over before it has begun."""


def rows(
    networks: Mapping[str, int],
    precisions: Sequence[str],
    device: str,
    theirs: Side,
    n: int,
    peak: float | None,
) -> Iterator[dict[str, Any]]:
    """One a layer and pass, for each network, at its batch, in each precision.

    precisions: those of a GPU, whose peak is PyTorch's product of large matrices in the same
    precision (in float32 for high); or none, for the CPU's float32 and its `peak` (GFLOPS).
    """
    for network, batch in networks.items():
        for precision in precisions or ("float32",):
            peer = precision.replace("high", "float32")
            if precisions:
                peak = 1e3 * theirs("product", precision=peer)
            on = {"on": "cuda", "precision": peer} if precisions else {}
            about = {"network": network, "batch": batch, "precision": precision}
            with Side(sys.executable, "side_mpitrain.py") as ours:
                ours("open", device=device)
                about |= {"copy": ours("copies") / _median(ours, "copy", n), "peak": peak}
                cases = ours("layers", network=network, batch=batch, precision=precision)
                about["step_seconds"] = _median(ours, "step", n)
                for case in cases:
                    yield from _layer({**about, **case}, ours, theirs, on, n)
                moved = ours("update", network=network)
                if moved >= LEAST:
                    about |= {"node": "update", "kind": "MomentumSgd", "shapes": [], "count": 1}
                    yield _memory(about, "update", moved, ours, n)


def _median(ours: Side, name: str, n: int) -> float:
    return statistics.median([ours("time", name=name) for _ in range(n + 1)][1:])


def _layer(
    about: Mapping[str, Any], ours: Side, theirs: Side, on: Mapping[str, str], n: int
) -> Iterator[dict[str, Any]]:
    """One a pass of a layer."""
    compared = about["kind"] == "Convolution"
    if compared:
        names = ("shape", "channels", "kernel", "stride", "padding", "groups", "bias", "batch")
        theirs("forget")
        for layout in LAYOUTS:
            theirs("convolution", **{name: about[name] for name in names}, layout=layout, **on)
    for name, moved in about["passes"].items():
        work = partial(ours, "time", name=f"{about['node']} {name}")
        if not (compared and name in CONVOLUTION):
            if moved >= LEAST:
                yield _memory(about, name, moved, ours, n)
            continue
        tried = {layout: theirs("time", name=f"{name} {layout}") for layout in LAYOUTS}
        layout = min(LAYOUTS, key=tried.__getitem__)
        a, b = take_turns(work, partial(theirs, "time", name=f"{name} {layout}"), n)
        flops = about["flops"] * about["batch"]
        yield {
            **_facts(about, name),
            "algorithm": about["algorithms"].get(name),
            "layout": layout,
            "ours": {"seconds": spread(a), "gflops": rates(flops / 1e9, a)},
            "pytorch": {"seconds": spread(b), "gflops": rates(flops / 1e9, b)},
            "ratio": ratios(a, b),
            **shares(
                statistics.median(a), flops, about["count"], about["step_seconds"], about["peak"]
            ),
        }


def _memory(about: Mapping[str, Any], name: str, moved: int, ours: Side, n: int) -> dict[str, Any]:
    """A pass that is bound by memory: the ratio is its rate over that of copies."""
    work = name if about["node"] == name else f"{about['node']} {name}"
    seconds = [ours("time", name=work) for _ in range(n + 1)][1:]
    return {
        **_facts(about, name),
        "bytes": moved,
        "ours": {"seconds": spread(seconds), "gbytes_per_second": rates(moved / 1e9, seconds)},
        "ratio": rates(moved / about["copy"], seconds),
        "of_step": round(about["count"] * statistics.median(seconds) / about["step_seconds"], 4),
    }


def _facts(about: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A row's names and numbers."""
    left_out = ("passes", "algorithms", "flops")
    return {**{key: value for key, value in about.items() if key not in left_out}, "pass": name}


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
    """What was found: two tables a network and precision, a pass a line."""
    kinds = dict.fromkeys((row["network"], row["precision"]) for row in found["rows"])
    tables = []
    for kind in kinds:
        rows = [row for row in found["rows"] if (row["network"], row["precision"]) == kind]
        sums, moves = [[row for row in rows if ("bytes" in row) == is_move] for is_move in (0, 1)]
        tables += [_sums(sums, found["n"])] if sums else []
        tables += [_moves(moves, found["n"])] if moves else []
    return tables


def _titled(what: str, first: Mapping[str, Any], n: int) -> Table:
    title = f"{what} of {first['network']}, batch {first['batch']}, {first['precision']}, n = {n}"
    return Table(
        title=f"{title}: minimum / median / maximum", title_justify="left", caption_justify="left"
    )


def _sums(rows: Sequence[Mapping[str, Any]], n: int) -> Table:
    first = rows[0]
    table = _titled("Convolutions", first, n)
    for name in ("convolution", "times", "pass", "algorithm", "GFLOPS", "PyTorch's", "its layout"):
        table.add_column(
            name, justify="left" if name not in ("times", "GFLOPS") else "right", no_wrap=True
        )
    for name in ("PyTorch's s / ours", "of peak", "of step", ""):
        table.add_column(name, justify="right", no_wrap=True)
    node = None
    for row in rows:
        new = row["node"] != node
        node = row["node"]
        if new:
            table.add_section()
        table.add_row(
            describe(row) if new else "",
            str(row["count"]) if new else "",
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
    ours, theirs = (sum(r["count"] * r[side]["seconds"][1] for r in rows) for side in _SIDES)
    table.caption = (
        f"GFLOPS and peak ({first['peak']:.0f} GFLOPS) count a direct convolution. All take "
        f"{1e3 * ours:.3g} ms, PyTorch's {1e3 * theirs:.3g}; our step without its update "
        f"{1e3 * first['step_seconds']:.3g} ms. <: at least {LARGE:.0%} of the step under "
        f"{SLOW:.0%} of peak."
    )
    return table


_SIDES = ("ours", "pytorch")


def _moves(rows: Sequence[Mapping[str, Any]], n: int) -> Table:
    first = rows[0]
    table = _titled("Passes over memory", first, n)
    for name in ("layer", "times", "pass", "MB", "GB/s", "of copies", "of step"):
        left = name in ("layer", "pass")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        shapes = ", ".join("x".join(map(str, each)) for each in row["shapes"])
        table.add_row(
            f"{row['node']}: {row['kind']} {shapes}",
            str(row["count"]),
            row["pass"],
            f"{row['bytes'] / 1e6:.0f}",
            three(row["ours"]["gbytes_per_second"]),
            three(row["ratio"]),
            f"{row['of_step']:.1%}",
        )
    table.caption = (
        "MB: what must be read and written at least. Copies read and write "
        f"{first['copy'] / 1e9:.0f} GB/s. Passes over less than {LEAST >> 20} MiB are left out."
    )
    return table


def describe(row: Mapping[str, Any]) -> str:
    """A convolution in a cell: "features.2: 64x224x224 -> 64, 3x3"."""
    shape, kernel = ("x".join(map(str, row[key])) for key in ("shape", "kernel"))
    text = f"{row['node']}: {shape} -> {row['channels']}, {kernel}"
    if set(row["stride"]) != {1}:
        text += f" / {row['stride'][0]}"
    return text + (f", {row['groups']} groups" if row["groups"] > 1 else "")
