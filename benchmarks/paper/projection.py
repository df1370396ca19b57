"""What the paper's model and the measured points say about more ranks than there were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mpitrain.commands.curve import (
    COMPUTE,
    LINK,
    PAPER,
    SHARE,
    Point,
    sharded_seconds,
    star_seconds,
)

PROJECTED = (16, 32, 64)
GBIT = 125e6
"""Bytes a second."""


def hidden_seconds(ranks: int, slowdown: float = 1) -> float:
    """The sharded model where the exchange goes on behind the backward pass: the larger term."""
    exchange = 2 * SHARE * (ranks - 1) / (ranks * LINK)
    return max(slowdown * COMPUTE / ranks, exchange)


def projection(
    exchange: str, measured: Sequence[Point], compute: float = COMPUTE, rate: float = GBIT
) -> Callable[[int], float]:
    """Seconds a step with more ranks, from the last measured point: a star's exchange grows with
    the clients, ours does not.

    compute: seconds of a batch on one rank. rate: bytes a second of a link.
    """
    last = measured[-1]
    beyond = max(0.0, last.seconds - compute / last.ranks)
    if exchange.startswith("star"):
        return lambda ranks: compute / ranks + beyond * (ranks - 1) / (last.ranks - 1)
    # What is left when there is no backward pass to hide behind: at least the bytes on rank 0's
    # link.
    whole = max(beyond, last.bytes_sent / rate)
    return lambda ranks: max(compute / ranks + beyond, compute / (3 * ranks) + whole)


def draw(
    curves: Mapping[str, Sequence[Point]],
    path: Path,
    compute: float = COMPUTE,
    rate: float = GBIT,
) -> None:
    """Speed-up by ranks: measured as marks, projected as thin lines, the paper's points and both
    models (of its own links) beside them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    axes = figure.subplots()
    every = [1, 2, 4, 8, *PROJECTED]
    axes.plot(every, every, color="0.7", linestyle="--", label="linear")
    models = (
        ("model of the paper's star", star_seconds, "k:"),
        ("model with shards", sharded_seconds, "k-."),
    )
    for label, seconds_of, style in models:
        speed_ups = [seconds_of(1) / seconds_of(ranks) for ranks in every]
        axes.plot(every, speed_ups, style, linewidth=1, label=label)
    axes.plot(
        *zip(*PAPER["vgg16"].measured.items(), strict=True), "ks", label="paper, K80s, 8 bits"
    )
    for (exchange, found), color in zip(curves.items(), ("C3", "C0", "C1"), strict=False):
        axes.plot(
            [1, *(one.ranks for one in found)],
            [1.0, *(compute / one.seconds for one in found)],
            color + "o-",
            label=f"{exchange}, measured",
        )
        if len(found) > 1:
            seconds = projection(exchange, found, compute, rate)
            later = [found[-1].ranks, *(n for n in PROJECTED if n > found[-1].ranks)]
            speed_ups = [compute / seconds(n) for n in later]
            axes.plot(later, speed_ups, color + ":", linewidth=1.5, label=f"{exchange}, projected")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(
        xlabel="ranks",
        ylabel="speed-up against one rank",
        title=f"VGG16, batch 256, {compute:.3g} s of compute (slept), {rate / GBIT:g} Gbit/s links",
    )
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
