"""Small pictures of curves as SVG, for a page that needs nothing from elsewhere."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MOST_POINTS = 1000
"""Of a curve; more would make the page slow, and no screen shows them."""
MARKED_POINTS = 40
"""Up to so many points of a marked curve get a dot."""
FAR_APART = 30
"""From this ratio of the largest to the smallest value on, a logarithmic scale shows more."""
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 10, 38
"""Margins, with room for numbers on the left and below. Units are those of the picture: about a
pixel on a phone."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Points in ascending order of x, and how they are drawn."""

    label: str
    """What the legend says; empty: nothing."""
    points: Points
    color: str
    thin: bool = False
    """Pale and behind the others, for what jumps from step to step."""
    dashed: bool = False
    marked: bool = False


def draw(
    title: str,
    curves: Sequence[Curve],
    last: int = 1,
    percent: bool = False,
    zero: bool = True,
    logarithmic: bool = False,
) -> str:
    """A <figure> of all curves over steps, with its legend.

    last: the step up to which the x axis reaches, which begins at 0; so several pictures have the
    same. percent: y is a share, and shown in percent. zero: the y axis begins at 0. logarithmic: it
    does not, and has a logarithmic scale where that helps: values are positive and far apart.
    """
    shown = [curve for curve in curves if curve.points]
    factor = 100 if percent else 1
    x = ticks(0, max([last, *(curve.points[-1][0] for curve in shown)]), whole=True)
    values = [factor * point[1] for curve in shown for point in curve.points]
    scale: Callable[[float], float] = float
    if logarithmic and values and min(values) > 0 and max(values) > FAR_APART * min(values):
        scale, y, title = math.log10, log_ticks(min(values), max(values)), f"{title}, log scale"
    else:
        values += [0] if zero or not values else []
        y = ticks(min(values), max(values))
    if percent:
        y = [tick for tick in y if tick <= 100 or tick == y[0]]

    def place(point: tuple[float, float]) -> str:
        return f"{_across(point[0], x):.1f},{_up(scale, factor * point[1], y):.1f}"

    parts = [_grid(x, y, scale)]
    for curve in sorted(shown, key=lambda curve: not curve.thin):
        points = [place(point) for point in thin_out(curve.points)]
        look = f'stroke="{curve.color}"' + (
            ' stroke-width="1" stroke-opacity="0.3"' if curve.thin else ' stroke-width="2"'
        )
        look += ' stroke-dasharray="6 4"' * curve.dashed
        parts.append(f'<polyline fill="none" {look} points="{" ".join(points)}"/>')
        if len(points) == 1 or (curve.marked and len(points) <= MARKED_POINTS):
            for point in points:
                cx, _, cy = point.partition(",")
                parts.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="{curve.color}"/>')
    name = html.escape(title)
    return (
        f"<figure><figcaption>{name}</figcaption>{_legend(shown)}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{''.join(parts)}</svg></figure>"
    )


def thin_out(points: Points, most: int = MOST_POINTS) -> Points:
    """At most so many points of a curve. Of each stretch the lowest and the highest point stay, so
    that no peak is lost."""
    if len(points) <= most:
        return points
    chosen: list[tuple[float, float]] = []
    stretches = most // 2
    for place in range(stretches):
        start, stop = (len(points) * edge // stretches for edge in (place, place + 1))
        stretch = points[start:stop]
        ends = (
            min(stretch, key=lambda point: point[1]),
            max(stretch, key=lambda point: point[1]),
        )
        chosen += sorted(set(ends))
    return chosen


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers, 4 to 8 of them, from `low` or below to `high` or above. whole: no fractions
    of 1."""
    spread = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / 4))
    gap = next(power * times for times in (1, 2, 5, 10) if spread / (power * times) <= 5.5)
    gap = max(gap, 1.0) if whole else gap
    first, last = math.floor(low / gap), math.ceil(high / gap - 1e-9)
    last = max(last, first + 1)
    return [count * gap for count in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from `low` or below to `high` or above; over more than two
    decades only powers between the ends, over more than six only powers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    few = last - first <= 6
    gap = 1 if few else max(1, (last - first) // 6)
    powers = [10.0**power for power in range(first, last + gap, gap)]
    found = [times * power for power in powers for times in ((1, 2, 5) if few else (1,))]
    start = max(place for place, tick in enumerate(found) if tick <= low)
    stop = min(place for place, tick in enumerate(found) if tick >= high)
    held = found[start : stop + 1]
    return [
        tick for tick in held if len(held) <= 7 or tick in (held[0], held[-1]) or tick in powers
    ]


def _across(value: float, axis: Sequence[float]) -> float:
    share = (value - axis[0]) / (axis[-1] - axis[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _up(scale: Callable[[float], float], value: float, axis: Sequence[float]) -> float:
    share = (scale(value) - scale(axis[0])) / (scale(axis[-1]) - scale(axis[0]))
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _grid(x: Sequence[float], y: Sequence[float], scale: Callable[[float], float]) -> str:
    """Lines and numbers of both axes."""
    parts = []
    for tick in y:
        at = _up(scale, tick, y)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
        )
    for tick in x:
        at = _across(tick, x)
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{_short(tick)}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    return "".join(parts)


def _short(value: float) -> str:
    """A number of an axis: 0.05, 1,500, 20k, 3M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * size or (unit == "M" and abs(value) >= size):
            return f"{value / size:.6g}{unit}"
    return f"{value:,.6g}" if abs(value) >= 1e-4 or not value else f"{value:.0e}"


def _legend(curves: Sequence[Curve]) -> str:
    keys = []
    for curve in curves:
        if curve.label:
            dashes = ' stroke-dasharray="6 4"' * curve.dashed
            wide = "1" if curve.thin else "3"
            pale = ' stroke-opacity="0.5"' * curve.thin
            keys.append(
                '<span class="key"><svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">'
                f'<line x1="0" x2="26" y1="4" y2="4" stroke="{curve.color}"{dashes}{pale} '
                f'stroke-width="{wide}"/></svg> {html.escape(curve.label)}</span>'
            )
    return f'<p class="legend">{"".join(keys)}</p>' if keys else ""
