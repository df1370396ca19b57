"""A scaling curve beside the paper's: points from the logs of runs; curve.csv, curve.txt and
curve.png from points."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpitrain.job.errors import RunError, UserError


@dataclass(frozen=True)
class Point:
    """What was measured with one number of ranks. Times are seconds of a step on rank 0; the first
    step is left out, since it compiles."""

    ranks: int
    batch_size: int
    steps: int
    seconds: float
    """Median of a step."""
    fastest: float
    slowest: float
    parts: Mapping[str, float]
    """Mean seconds a step of compute, exchange (what compute does not hide) and wait (for
    images)."""
    bytes_sent: float
    """Mean bytes that rank 0 sent a step."""
    cores: int
    """Different CPU cores that all ranks together compute on; 0 where a device is no CPU."""
    where: str
    """Devices, exchange and MPI library, in words."""

    @property
    def images_per_second(self) -> float:
        """Of all ranks together."""
        return self.batch_size / self.seconds

    @property
    def exchange_share(self) -> float:
        """The part of a step's time that goes into the exchange and is not hidden."""
        return self.parts["exchange"] / max(sum(self.parts.values()), 1e-12)

    def speed_up(self, base: Point) -> float:
        """Against `base`, the point with the fewest ranks: how many times as fast."""
        return base.seconds / self.seconds

    def efficiency(self, base: Point) -> float:
        """Speed-up over the growth in ranks; 1 is ideal."""
        return self.speed_up(base) * base.ranks / self.ranks


@dataclass(frozen=True)
class Paper:
    """What the paper (arXiv 1702.01846, Figure 6) has for a network, and models of it: speed-up by
    number of clients."""

    source: str
    measured: Mapping[int, float]
    linear: bool = False
    models: Mapping[str, tuple[str, Callable[[int], float]]] | None = None
    """By name, the formula in words and as speed-up."""


COMPUTE, STAR, SHARE, LINK = 96.0, 2.50, 138.4, 110.7
"""VGG16 in the paper: s of compute a batch of 256 on one K80, s a client at the server, MB of 8-bit
gradient, MB/s of the link."""


def star_seconds(ranks: int) -> float:
    """Seconds a step of VGG16 as in the paper: all clients' gradients and weights go through one
    server. T(N) = A/N + b*N."""
    return COMPUTE / ranks + STAR * ranks


def sharded_seconds(ranks: int) -> float:
    """The same devices and link, but each rank averages a shard of the gradient. T(N) = A/N +
    2*S*(N-1)/(N*B)."""
    return COMPUTE / ranks + 2 * SHARE * (ranks - 1) / (ranks * LINK)


PAPER = {
    "lenet": Paper(
        "Figure 6 left: LeNet, batch 120, float32, 1 to n tablets that run a browser: nearly "
        "linear",
        {},
        linear=True,
    ),
    "vgg16": Paper(
        "Figure 6 right: VGG16, batch 256, 8 bits, one NVIDIA K80 a client, one server behind 1 "
        "Gbit/s: "
        "2.8x with 4, saturated with 8 (29 s a step, about 3.3x)",
        {4: 2.8, 8: 3.3},
        models={
            "star": (
                f"T(N) = {COMPUTE:.1f}/N + {STAR:.2f}*N s, all through one server: a model that "
                "fits the paper's times",
                lambda ranks: star_seconds(1) / star_seconds(ranks),
            ),
            "sharded": (
                f"T(N) = {COMPUTE:.1f}/N + 2*{SHARE}*(N-1)/(N*{LINK}) s, each rank averages a "
                "shard: same K80s and link, not measured",
                lambda ranks: sharded_seconds(1) / sharded_seconds(ranks),
            ),
        },
    ),
}


def point(events: Sequence[Mapping[str, Any]], hosts: Sequence[str]) -> Point:
    """The point that the events of a log stand for. hosts: each rank's, NAME/N; the core numbers of
    one name are one host's.

    Of a run that was started again, the start that did most steps counts: each compiles in its
    first one.
    """
    parts: list[list[Mapping[str, Any]]] = []
    for event in events:
        if event["event"] == "start":
            parts.append([event])
        elif event["event"] == "step":
            parts[-1].append(event)
    start, *every = max(parts, key=len)
    steps = every[1:]
    if not steps:
        raise RunError(
            f"with {counted(start['ranks'], 'rank')}: no step to measure after the first one"
        )
    totals = [event["seconds"]["total"] for event in steps]
    devices: list[str] = start["devices"]
    held = [re.search(r", cores ([\d,]+)$", device) for device in devices]
    cores = {
        (host.partition("/")[0], core)
        for host, found in zip(hosts, held, strict=True)
        if found
        for core in found[1].split(",")
    }
    kinds = dict.fromkeys(device.partition(", cores ")[0] for device in devices)
    return Point(
        ranks=start["ranks"],
        batch_size=start["batch_size"],
        steps=len(steps),
        seconds=statistics.median(totals),
        fastest=min(totals),
        slowest=max(totals),
        parts={
            part: statistics.fmean(event["seconds"][part] for event in steps)
            for part in ("compute", "exchange", "wait")
        },
        bytes_sent=statistics.fmean(event["bytes_sent"] for event in steps),
        cores=len(cores) if all(held) else 0,
        where=(
            f"{', '.join(kinds)}; {start['versions']['mpi']}; "
            f"exchange {start['exchange']}, update {start['update']}"
        ),
    )


def summary(one: Point) -> str:
    """A point in a line."""
    steps = counted(one.steps, "step")
    return f"{_seconds(one.seconds)} s a step ({steps}), {one.images_per_second:,.1f} images/s"


COLUMNS = (
    "ranks",
    "cores",
    "batch_size",
    "steps",
    "seconds",
    "fastest",
    "slowest",
    "images_per_second",
    "speed_up",
    "efficiency",
    "exchange_share",
    "bytes_sent",
    "paper_speed_up",
    "star_model",
    "sharded_model",
)


def csv_text(network: str, points: Sequence[Point]) -> str:
    """curve.csv: a header and a row a point, fewest ranks first. Empty: unknown here, or not in the
    paper."""
    base, paper = points[0], PAPER.get(network)
    models = (paper.models or {}) if paper else {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in points:
        of_models = [
            round(models[name][1](one.ranks), 3) if name in models else ""
            for name in ("star", "sharded")
        ]
        writer.writerow(
            [
                one.ranks,
                one.cores or "",
                one.batch_size,
                one.steps,
                *(round(seconds, 6) for seconds in (one.seconds, one.fastest, one.slowest)),
                round(one.images_per_second, 2),
                round(one.speed_up(base), 4),
                round(one.efficiency(base), 4),
                round(one.exchange_share, 4),
                round(one.bytes_sent),
                paper.measured.get(one.ranks, "") if paper else "",
                *of_models,
            ]
        )
    return text.getvalue()


def table(network: str, points: Sequence[Point]) -> str:
    """curve.txt: the points beside the paper's, and what to know about both."""
    base, paper = points[0], PAPER.get(network)
    models = (paper.models or {}) if paper else {}
    headings = [
        "ranks",
        "cores",
        "s/step",
        "fastest",
        "slowest",
        "images/s",
        "speed-up",
        "efficiency",
        "exchange",
    ]
    headings += ["MB sent/step", *(["paper"] if paper else []), *models]
    rows = [headings]
    for one in points:
        row = [str(one.ranks), str(one.cores or "-")]
        row += [_seconds(seconds) for seconds in (one.seconds, one.fastest, one.slowest)]
        row += [
            f"{one.images_per_second:,.1f}",
            f"{one.speed_up(base):.2f}",
            f"{one.efficiency(base):.0%}",
        ]
        row += [f"{one.exchange_share:.0%}", f"{one.bytes_sent / 1e6:,.2f}"]
        if paper:
            row.append(f"~{one.ranks}" if paper.linear else str(paper.measured.get(one.ranks, "-")))
        row += [f"{speed_up(one.ranks):.1f}" for _, speed_up in models.values()]
        rows.append(row)
    widths = [max(len(row[place]) for row in rows) for place in range(len(headings))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        f"{network}, batch {base.batch_size} over all ranks, {counted(base.steps, 'step')} a run "
        "after the first: "
        "median seconds a step, and the bytes that rank 0 sends"
    ]
    lines += [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines.append(f"here, with {counted(points[-1].ranks, 'rank')}: {points[-1].where}")
    if base.ranks > 1:
        lines.append(f"speed-up: against {base.ranks} ranks, the fewest that were measured")
    if paper:
        lines.append(f"paper (arXiv 1702.01846), {paper.source}")
    lines += [f"{name}: {words}" for name, (words, _) in models.items()]
    lines += [line for line in [core_note(points)] if line]
    return "\n".join(lines) + "\n"


def core_note(points: Sequence[Point]) -> str:
    """A warning where cores do not grow with the ranks, so that the speed-up cannot either; else
    nothing."""
    base = points[0]
    short = [
        one
        for one in points
        if one.cores and base.cores and one.cores * base.ranks < base.cores * one.ranks
    ]
    if not short:
        return ""
    if all(one.cores <= base.cores for one in short):
        found = (
            f"no speed-up is to be expected: {_listed(one.ranks for one in short)} ranks share the "
            f"{counted(base.cores, 'core')} that {counted(base.ranks, 'rank')} already had"
        )
    else:
        found = "cores do not grow with the ranks; the speed-up can be at most " + ", ".join(
            f"{one.cores / base.cores:.1f} with {one.ranks} ranks ({counted(one.cores, 'core')})"
            for one in short
        )
    return (
        f"note: {found}. The table shows what the exchange costs. To give each rank a core of its "
        "own (while they last): "
        "--launcher 'mpirun -bind-to core -n {ranks}' with MPICH, 'mpirun --bind-to core -n "
        "{ranks}' with Open MPI"
    )


def check_plots() -> None:
    """Raise UserError where `draw` could not."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            "curves are drawn with matplotlib, which is not installed: pip install "
            "'mpitrain[plots]'"
        ) from None


def draw(network: str, points: Sequence[Point], path: Path) -> None:
    """curve.png: speed-up beside the paper's on the left, where a step's time goes on the right."""
    from matplotlib.figure import Figure

    base, paper = points[0], PAPER.get(network)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    here = [one.ranks for one in points]
    most = max([*here, *(paper.measured if paper else [])])
    every = range(base.ranks, most + 1)
    label = "linear" + (
        ", as the paper's LeNet on tablets is nearly" if paper and paper.linear else ""
    )
    left.plot([base.ranks, most], [1, most / base.ranks], color="0.6", linestyle="--", label=label)
    if paper:
        for (name, (_, speed_up)), style in zip(
            (paper.models or {}).items(), ("-", "-."), strict=False
        ):
            words = {
                "star": "model of the paper's star, K80s",
                "sharded": "model with shards, same K80s and link",
            }
            scale = speed_up(base.ranks)
            left.plot(
                every,
                [speed_up(n) / scale for n in every],
                "C1" + style,
                linewidth=1,
                label=words[name],
            )
        if paper.measured and base.ranks == 1:
            left.plot(
                *zip(*paper.measured.items(), strict=True), "C1s", label="paper, K80s, 8 bits"
            )
    left.plot(here, [one.speed_up(base) for one in points], "C0o-", label="measured here")
    left.set(
        xlabel="ranks",
        ylabel=f"speed-up against {counted(base.ranks, 'rank')}",
        title=f"{network}, batch {base.batch_size}",
    )
    left.set_xticks(sorted({*here, *(paper.measured if paper else [])}))
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    foot = [0.0] * len(points)
    for part, color in (("compute", "C0"), ("exchange", "C3"), ("wait", "0.6")):
        heights = [one.parts[part] for one in points]
        right.bar(
            [str(ranks) for ranks in here], heights, bottom=foot, color=color, width=0.6, label=part
        )
        foot = [low + high for low, high in zip(foot, heights, strict=True)]
    right.set(xlabel="ranks", ylabel="seconds a step (mean, rank 0)", title="where the time goes")
    right.set_ylim(top=1.25 * max(foot))
    right.legend(frameon=False, ncols=3, loc="upper center")
    where = points[-1].where.partition(" (/")[0]
    figure.supxlabel(
        where + ("" if not core_note(points) else "; ranks share cores"), fontsize=8, color="0.4"
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _seconds(seconds: float) -> str:
    """Three or four digits that count."""
    return f"{seconds:.4f}" if seconds < 1 else f"{seconds:.2f}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _listed(numbers: Iterator[int]) -> str:
    words = [str(number) for number in numbers]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
