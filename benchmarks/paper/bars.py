"""Pictures of figures side by side: the paper's, the peer's here, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

COLORS = {"paper": "0.72", "peer": "C1", "ours": "C0"}
Bar: TypeAlias = tuple[str, float, str]
"""What it is, how long, and a key of COLORS."""


def draw(
    panels: Mapping[str, Sequence[Bar]],
    unit: str,
    names: Mapping[str, str],
    path: Path,
    logarithmic: bool = True,
    foot: str = "",
) -> None:
    """A panel a title, the first figure on top: bars, or points on a logarithmic scale.

    names: what the legend calls each kind. foot: a line below, such as the hardware.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import NullFormatter

    across = 2 if len(panels) == 4 else len(panels)
    down = -(-len(panels) // across)
    most = max(len(bars) for bars in panels.values())
    figure = Figure(
        figsize=(4.8 * across + 1, down * (0.24 * most + 1) + 0.6), layout="constrained"
    )
    every = figure.subplots(down, across, squeeze=False).flat
    for axes, (title, bars) in zip(every, panels.items(), strict=True):
        places = range(len(bars))
        values = [value for _, value, _ in bars]
        colors = [COLORS[kind] for _, _, kind in bars]
        if logarithmic:  # a bar's length would mean nothing there
            axes.scatter(values, places, color=colors, zorder=2)
            axes.grid(axis="y", color="0.9", zorder=0)
        else:
            axes.barh(places, values, color=colors)
        axes.set_yticks(places, [name for name, _, _ in bars], fontsize=8)
        axes.invert_yaxis()
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        low, high = axes.get_xlim()
        longest = max(value for bars in panels.values() for _, value, _ in bars)
        axes.set_xlim(*((low, 6 * high) if logarithmic else (0, 1.15 * longest)))
        for place, (_, value, _) in zip(places, bars, strict=True):
            text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            axes.annotate(
                text, (value, place), (6, 0), textcoords="offset points", va="center", fontsize=7
            )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(unit + (", logarithmic" if logarithmic else ""), fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles=[Patch(color=COLORS[kind], label=name) for kind, name in names.items()],
        loc="outside upper center",
        ncols=len(names),
        frameon=False,
        fontsize=8,
    )
    figure.supxlabel(foot, fontsize=7, color="0.4")
    figure.savefig(path, dpi=120)


def hardware(found: Mapping[str, Any]) -> str:
    """The device of a task and the cores, in words for below a picture."""
    ours, machine = found["ours"], found["machine"]
    load = f", load {found['load']} before" if found.get("load") is not None else ""
    where = f"{ours['device']} by {ours['platform']}, {machine['cores']} cores"
    return f"here: {where}, n = {found['n']}{load}"
