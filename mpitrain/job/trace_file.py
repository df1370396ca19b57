"""trace.json: the spans of all ranks on one clock, in the Trace Event Format, which Perfetto and
chrome://tracing read.

A process of the format is a rank, a thread one of its rows; "X" is a span, and "s" and "f" are the
two ends of a message. Times are microseconds since the first span, by rank 0's clock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpitrain import __version__
from mpitrain.job.trace import DEVICE, EXCHANGE, IMAGES, MAIN, MESSAGES, SECOND, STEP, Span

NAME = "trace.json"
ROWS = {
    STEP: (1, "main thread"),
    MAIN: (1, "main thread"),
    EXCHANGE: (2, "exchange thread"),
    DEVICE: (3, "device"),
    SECOND: (4, "device, second queue"),
    IMAGES: (5, "images on their way"),
}
"""Number and name of each row; the format calls them threads."""
FIRST_OF_MESSAGES = 10
"""Number of the first row of messages."""


@dataclass(frozen=True)
class RankTrace:
    """What one rank has noted."""

    rank: int
    """Its number when the job began."""
    device: str
    readings: Sequence[Sequence[int]]
    """Of the clocks, in nanoseconds: this rank's, how far rank 0's is ahead, and the error."""
    spans: Sequence[Span]
    left_out: int = 0
    """Spans that it had no room for."""

    @property
    def error(self) -> int:
        """Nanoseconds by which its times may be wrong."""
        return max(error for _, _, error in self.readings)

    def aligned(self) -> list[Span]:
        """The spans on rank 0's clock. Between two readings both clocks are taken to run evenly."""
        (at, ahead, _), (later, then, _) = self.readings[0], self.readings[-1]
        drift = (then - ahead) / (later - at) if later > at else 0.0

        def move(time: int) -> int:
            return time + ahead + round(drift * (time - at))

        return [replace(span, begin=move(span.begin), end=move(span.end)) for span in self.spans]


def document(ranks: Sequence[RankTrace], facts: dict[str, Any]) -> dict[str, Any]:
    """The file's content. facts: of the run, to be kept with it."""
    moved = {each.rank: each.aligned() for each in ranks}
    start = min((span.begin for spans in moved.values() for span in spans), default=0)
    events: list[dict[str, Any]] = []
    ends: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for each in ranks:
        events += _names(each.rank, f"rank {each.rank}: {each.device}")
        rows: dict[int, str] = {}
        for number, name, span in _rows(moved[each.rank]):
            rows[number] = name
            place = {"pid": each.rank, "tid": number}
            begin, end = _micro(span.begin - start), _micro(max(span.end, span.begin + 2) - start)
            time = {"ts": begin, "dur": round(end - begin, 3)}
            event = {"ph": "X", "name": span.name, "cat": span.row, **place, **time}
            events.append({**event, "args": span.facts} if span.facts else event)
            for key in span.sent:
                ends[tuple(key)].append({"ph": "s", **place, "ts": begin})
            for key in span.received:  # it must lie within its span
                ends[tuple(key)].append(
                    {"ph": "f", "bp": "e", **place, "ts": round(end - 0.001, 3)}
                )
        for number, name in sorted(rows.items()):
            meta = {"ph": "M", "pid": each.rank, "tid": number}
            events.append({**meta, "name": "thread_name", "args": {"name": name}})
            events.append({**meta, "name": "thread_sort_index", "args": {"sort_index": number}})
    both = [found for found in ends.values() if len(found) == 2]
    for number, found in enumerate(both, 1):
        events += [{**each, "id": number, "name": "message", "cat": MESSAGES} for each in found]
    other = {
        "mpitrain": __version__,
        **facts,
        "clock_error_us": {str(each.rank): _micro(each.error) for each in ranks},
        "spans_left_out": {str(each.rank): each.left_out for each in ranks if each.left_out},
    }
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def unfinished(ranks: Sequence[int], state: str) -> dict[str, Any]:
    """A file that only says why it is empty."""
    events = [event for rank in ranks for event in _names(rank, f"rank {rank}")]
    other = {"mpitrain": __version__, "state": state}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def write(folder: Path, content: dict[str, Any]) -> Path:
    """Put a document in the place of the one before; a line an event. Raises OSError."""
    path, beside = folder / NAME, folder / f".{NAME}"
    compact = json.JSONEncoder(separators=(",", ":")).encode
    lines = ",\n".join(map(compact, content["traceEvents"]))
    rest = {name: value for name, value in content.items() if name != "traceEvents"}
    try:
        beside.write_text(f'{{"traceEvents":[\n{lines}\n],{compact(rest)[1:]}\n')
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return path


def _names(rank: int, name: str) -> list[dict[str, Any]]:
    meta = {"ph": "M", "pid": rank, "tid": 0}
    return [
        {**meta, "name": "process_name", "args": {"name": name}},
        {**meta, "name": "process_sort_index", "args": {"sort_index": rank}},
    ]


def _rows(spans: Sequence[Span]) -> Iterator[tuple[int, str, Span]]:
    """Number and name of each span's row. In a row spans lie within each other or side by side."""
    ordered = sorted(spans, key=lambda span: (span.begin, -span.end))
    open_: dict[int, list[int]] = defaultdict(list)
    """Row -> ends of the spans that are not over."""
    free: list[int] = []
    """When each row of messages is free again."""
    for span in ordered:
        if span.row == MESSAGES:
            place = next((at for at, end in enumerate(free) if end <= span.begin), len(free))
            free[place : place + 1] = [max(span.end, span.begin + 2)]
            yield FIRST_OF_MESSAGES + place, f"messages {place + 1}", span
            continue
        number, name = ROWS[span.row]
        ends = open_[number]
        while ends and ends[-1] <= span.begin:
            ends.pop()
        if ends and span.end > ends[-1]:  # the clocks of two queues differ by a microsecond
            span = replace(span, end=ends[-1])
        ends.append(span.end)
        yield number, name, span


def _micro(nanoseconds: int) -> float:
    return round(nanoseconds / 1000, 3)
