"""One step of all ranks as a picture, from a run's trace.json."""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mpitrain.commands.picture import ticks
from mpitrain.commands.run_record import number, table
from mpitrain.job.plain import plain
from mpitrain.job.trace import DEVICE, EXCHANGE, IMAGES, MAIN, MESSAGES, SECOND, STEP
from mpitrain.job.trace_file import NAME

LARGEST = 1 << 28
"""Bytes of a file that is read."""
MOST_RANKS = 4
"""That are drawn; a page of more would say less."""
MOST_ARROWS = 400
WIDTH, LEFT, RIGHT, TOP = 1000, 132, 8, 8
ROW, INNER, GAP, BETWEEN, AXIS = 17, 5, 2, 10, 34
"""Heights: of a row, of what lies within a span, between rows, between ranks, of the axis."""
THINNEST = 0.12
"""Narrower spans are not drawn."""
ROUNDING = 0.01
"""Microseconds by which a span may seem to begin before the one beside it ends."""
LETTER = 6.3
"""Width of a letter, to see whether a name fits."""
COLORS = {
    "data": "#d9b44a",
    "forward": "#7fa3c7",
    "backward": "#4d6b88",
    "wait": "#c0392b",
    "agree": "#8c8c8c",
    EXCHANGE: "#e08e45",
    "update": "#4f9d69",
    MESSAGES: "#8e6bb0",
    IMAGES: "#e6cf8b",
    "other": "#b5b5b5",
}
LEGEND = {
    "data": "waiting for images",
    "forward": "forward",
    "backward": "backward",
    "update": "update",
    "wait": "waiting for the exchange",
    "agree": "agreeing",
    EXCHANGE: "work on buckets",
    MESSAGES: "messages under way",
    IMAGES: "images under way",
}


@dataclass(frozen=True)
class Bar:
    """A span of the file."""

    rank: int
    row: int
    name: str
    kind: str
    """The row's, as job/trace.py has it."""
    begin: float
    end: float
    """Microseconds."""
    facts: Mapping[str, Any]

    @property
    def color(self) -> str:
        first, _, last = self.name.rpartition(" ")
        name = last if self.kind in (DEVICE, SECOND) and first else self.name
        return COLORS.get(self.kind, COLORS.get(name, COLORS["other"]))


@dataclass(frozen=True)
class Trace:
    """What a trace.json tells."""

    bars: Sequence[Bar]
    arrows: Sequence[tuple[tuple[int, int, float], tuple[int, int, float]]]
    """Rank, row and time of both ends of each message."""
    rows: Mapping[tuple[int, int], str]
    """Rank and number of a row -> its name."""
    ranks: Mapping[int, str]
    error: float
    """Microseconds by which the times of two ranks may differ from what they say; NaN: unknown."""


def read(folder: Path) -> Trace | str | None:
    """The trace of a run directory, or in words why there is none; None if none was asked for."""
    path = folder / NAME
    try:
        if not path.exists():
            return None
        if path.stat().st_size > LARGEST:
            return f"{NAME} has more than {LARGEST >> 20} MiB and is not drawn"
        whole = json.loads(path.read_bytes())
        events, other = whole["traceEvents"], table(whole.get("otherData"))
        found = _trace([event for event in events if isinstance(event, dict)], other)
    except OSError as error:
        return f"{NAME} cannot be read: {error.strerror or error}"
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return f"{NAME} cannot be read: it is no trace of this program"
    if found.bars:
        return found
    return (
        f"{NAME}: {other['state']}" if isinstance(other.get("state"), str) else f"{NAME} is empty"
    )


def _trace(events: Sequence[Mapping[str, Any]], other: Mapping[str, Any]) -> Trace:
    bars, rows, ranks = [], {}, {}
    ends: dict[Any, dict[str, tuple[int, int, float]]] = {}
    for event in events:
        kind, rank, row = event.get("ph"), int(event["pid"]), int(event["tid"])
        args, name = table(event.get("args")), str(event.get("name"))
        if kind == "M" and name == "thread_name":
            rows[rank, row] = str(args.get("name"))
        elif kind == "M" and name == "process_name":
            ranks[rank] = str(args.get("name"))
        elif kind in ("X", "s", "f"):
            begin = number(event["ts"])
            if kind == "X" and begin >= 0 and number(event["dur"]) >= 0:
                cat, end = str(event.get("cat")), begin + number(event["dur"])
                bars.append(Bar(rank, row, name, cat, begin, end, args))
            elif kind != "X":
                ends.setdefault(str(event["id"]), {})[str(kind)] = rank, row, begin
    arrows = [(both["s"], both["f"]) for both in ends.values() if len(both) == 2]
    errors = sorted(number(each) for each in table(other.get("clock_error_us")).values())
    return Trace(bars, arrows, rows, ranks, sum(errors[-2:]))


def draw(trace: Trace) -> str:
    """A <figure> of the step that took the median time; empty if the trace has no step."""
    spans: dict[str, tuple[float, float]] = {}
    for bar in trace.bars:
        if bar.kind == STEP:
            begin, end = spans.get(bar.name, (bar.begin, bar.end))
            spans[bar.name] = min(begin, bar.begin), max(end, bar.end)
    if not spans:
        return ""
    middle = statistics.median_low(end - begin for begin, end in spans.values())
    name, (start, end) = next(each for each in spans.items() if each[1][1] - each[1][0] == middle)
    ranks = sorted({bar.rank for bar in trace.bars if (bar.kind, bar.name) == (STEP, name)})
    picture = _Picture(trace, ranks[:MOST_RANKS], start, max(end, start + 1))
    left_out = len(ranks) - MOST_RANKS
    notes = [f"{left_out} more ranks are in {NAME}."] if left_out > 0 else []
    if trace.error >= 0 and len(ranks) > 1:
        notes.append(f"Times of two ranks agree within {trace.error:.3g} us.")
    notes.append(f"{NAME} has all of it, for Perfetto or chrome://tracing.")
    keys = "".join(
        '<span class="key"><svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">'
        f'<rect width="26" height="8" fill="{COLORS[kind]}"/></svg> {words}</span>'
        for kind, words in LEGEND.items()
    )
    name = _text(f"{name}, {(end - start) / 1000:.3g} ms")
    return (
        f'<figure><figcaption>{name}</figcaption><p class="legend">{keys}</p>'
        f'<div class="wide">{picture.svg(name)}</div></figure>'
        f'<p class="note">{" ".join(notes)}</p>'
    )


class _Picture:
    """Rows from top to bottom, time from left to right."""

    def __init__(self, trace: Trace, ranks: Sequence[int], start: float, end: float) -> None:
        self._trace, self._start, self._scale = trace, start, (WIDTH - LEFT - RIGHT) / (end - start)
        self._end = end
        shown = [
            bar for bar in trace.bars
            if bar.rank in ranks and bar.kind != STEP and bar.end > start and bar.begin < end
        ]  # fmt: skip
        self._bars = _levels(shown)
        self._tops: dict[tuple[int, int], float] = {}
        self._labels: list[tuple[float, str, bool]] = []
        at = float(TOP)
        for rank in ranks:
            self._labels.append((at, trace.ranks.get(rank, f"rank {rank}"), True))
            at += ROW + GAP
            for row in sorted({bar.row for bar in shown if bar.rank == rank}):
                self._tops[rank, row] = at
                self._labels.append((at, trace.rows.get((rank, row), str(row)), False))
                at += ROW + GAP
            at += BETWEEN
        self._bottom = at

    def svg(self, name: str) -> str:
        parts = [self._axis()]
        for top, words, heads in self._labels:
            bold = ' font-weight="600"' * heads
            parts.append(f'<text x="0" y="{top + 12:.0f}"{bold}>{_text(words)}</text>')
        parts += [self._rect(bar, inner) for bar, inner in self._bars]
        arrows = (self._arrow(*each) for each in self._trace.arrows)
        parts += islice(filter(None, arrows), MOST_ARROWS)
        height = self._bottom + AXIS
        return (
            f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}">'
            f"{''.join(parts)}</svg>"
        )

    def _x(self, time: float) -> float:
        return LEFT + (min(max(time, self._start), self._end) - self._start) * self._scale

    def _rect(self, bar: Bar, inner: bool) -> str:
        left, right = self._x(bar.begin), self._x(bar.end)
        if right - left < THINNEST:
            return ""
        top = self._tops[bar.rank, bar.row]
        facts = "".join(f"\n{plain(f'{name}: {value}')}" for name, value in bar.facts.items())
        title = f"{plain(bar.name)}, {(bar.end - bar.begin) / 1000:.3g} ms{facts}"
        name = plain(bar.name)
        shown = (
            f'<text x="{left + 3:.1f}" y="{top + 10:.1f}" style="fill:#fff;font-size:10px">'
            f"{html.escape(name)}</text>"
            if right - left > LETTER * len(name) and not inner
            else ""
        )
        height = INNER if inner else ROW
        return (
            f'<rect x="{left:.2f}" y="{top + ROW - height:.0f}" width="{right - left:.2f}" '
            f'height="{height}" '
            f'fill="{bar.color}"><title>{html.escape(title)}</title></rect>{shown}'
        )

    def _arrow(self, sent: tuple[int, int, float], received: tuple[int, int, float]) -> str:
        tops = self._tops.get(sent[:2]), self._tops.get(received[:2])
        inside = self._start <= sent[2] <= received[2] <= self._end
        if tops[0] is None or tops[1] is None or not inside:
            return ""
        (x1, y1), (x2, y2) = (
            (self._x(end[2]), top + ROW / 2)
            for end, top in zip((sent, received), (tops[0], tops[1]), strict=True)
        )
        return (
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#333" '
            f'stroke-width="0.8" stroke-opacity="0.55"/>'
            f'<circle cx="{x2:.1f}" cy="{y2:.1f}" r="1.8" fill="#333" fill-opacity="0.7"/>'
        )

    def _axis(self) -> str:
        parts = []
        for tick in ticks(0, (self._end - self._start) / 1000):
            x = LEFT + 1000 * tick * self._scale
            if x > WIDTH - RIGHT + 1:
                break
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{self._bottom:.0f}" '
                f'stroke="#ddd"/><text x="{x:.1f}" y="{self._bottom + 13:.0f}" '
                f'text-anchor="middle">{tick:.4g}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text x="{middle}" y="{self._bottom + 28:.0f}" text-anchor="middle">ms</text>'
        )
        return "".join(parts)


def _levels(bars: Sequence[Bar]) -> list[tuple[Bar, bool]]:
    """The spans that are drawn, and whether they lie within others: the threads' do, kernels
    within layers are left out."""
    found: list[tuple[Bar, bool]] = []
    ends: dict[tuple[int, int], float] = {}
    for bar in sorted(bars, key=lambda bar: (bar.begin, -bar.end)):
        place = bar.rank, bar.row
        inner = bar.begin < ends.get(place, 0.0) - ROUNDING
        if not inner or bar.kind in (MAIN, EXCHANGE):
            found.append((bar, inner))
            ends[place] = max(bar.end, ends.get(place, 0.0))
    return found


def _text(words: str) -> str:
    return html.escape(plain(words))
