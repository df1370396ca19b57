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


def hidden_seconds(ranks: int, slowdown: float = 1) -> float:
    """The sharded model where the exchange goes on behind the backward pass: the larger term."""
    exchange = 2 * SHARE * (ranks - 1) / (ranks * LINK)
    return max(slowdown * COMPUTE / ranks, exchange)


def projection(exchange: str, measured: Sequence[Point]) -> Callable[[int], float]:
    """Seconds a step with more ranks, from the last measured point: a star's exchange grows with
    the clients, ours does not."""
    last = measured[-1]
    beyond = max(0.0, last.seconds - COMPUTE / last.ranks)
    if exchange.startswith("star"):
        return lambda ranks: COMPUTE / ranks + beyond * (ranks - 1) / (last.ranks - 1)
    # What is left when there is no backward pass to hide behind.
    whole = max(beyond, least_seconds(last))
    return lambda ranks: max(COMPUTE / ranks + beyond, COMPUTE / (3 * ranks) + whole)


def least_seconds(last: Point) -> float:
    """Seconds that the bytes of a step need at least on rank 0's link, of 1 Gbit/s: what cannot
    hide behind a shorter backward pass."""
    return last.bytes_sent / 125e6


def draw(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Speed-up by ranks: measured as marks, projected as thin lines, the paper's points and both
    models beside them."""
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
            [1.0, *(COMPUTE / one.seconds for one in found)],
            color + "o-",
            label=f"{exchange}, measured",
        )
        if len(found) > 1:
            seconds = projection(exchange, found)
            later = [found[-1].ranks, *(n for n in PROJECTED if n > found[-1].ranks)]
            speed_ups = [COMPUTE / seconds(n) for n in later]
            axes.plot(later, speed_ups, color + ":", linewidth=1.5, label=f"{exchange}, projected")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(
        xlabel="ranks",
        ylabel="speed-up against one rank",
        title=f"VGG16, batch 256, {COMPUTE:.0f} s of compute (slept), 1 Gbit/s links",
    )
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
