"""The picture of a traced step, and what is said where there is none."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mpitrain.commands import timeline
from mpitrain.job import trace_file
from mpitrain.job.trace import DEVICE, MAIN, MESSAGES, STEP, Span
from mpitrain.job.trace_file import RankTrace

MS = 1_000_000


def rank_trace(rank: int, ahead: int = 0, error: int = 0, drift: int = 0) -> RankTrace:
    """Two steps of 10 and 20 ms, by a clock that is `ahead` of rank 0's so far at first, and
    `drift` more 100 ms later."""

    def at(ms: float) -> int:
        return round(ms * MS) + ahead + round(drift * ms / 100)

    spans = [
        Span(STEP, "step 1", at(0), at(10)), Span(MAIN, "backward", at(0), at(6)),
        Span(MAIN, "wait for <b>", at(1), at(5)), Span(MAIN, "wait", at(6), at(10)),
        Span(STEP, "step 2", at(10), at(30)), Span(MAIN, "forward", at(10), at(30)),
        Span(DEVICE, "conv1 forward", at(2), at(4)), Span(DEVICE, "direct", at(2), at(4)),
    ]  # fmt: skip
    key, peer = ("all", 0, 1, 1, 0), {"bytes to rank": {"0": 9}, "bytes from rank": {"1": 9}}
    if rank == 1:
        spans.append(Span(MESSAGES, "codes", at(2), at(3), peer, sent=[key]))
    if rank == 0:
        spans.append(Span(MESSAGES, "codes", at(1), at(4), peer, received=[key, ("lost",)]))
        spans.append(Span(MESSAGES, "more", at(2), at(5)))
    readings = [(at(0), -ahead, error), (at(100), -ahead - drift, error)]
    return RankTrace(rank, f"device {rank}", readings, spans)


class Picture(HTMLParser):
    """What is drawn: attributes of each rectangle, with its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rects: list[dict[str, str | None]] = []
        self.titles: list[str] = []
        self.lines = 0
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        if tag == "rect":
            self.rects.append(dict(attrs))
        assert tag != "b"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.lines += tag == "line" and "stroke-width" in dict(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "title":
            self.titles.append(data)


def written(folder: Path, *ranks: RankTrace) -> timeline.Trace:
    trace_file.write(folder, trace_file.document(ranks, {"network": "lenet"}))
    found = timeline.read(folder)
    assert isinstance(found, timeline.Trace)
    return found


def test_the_step_of_median_time_is_drawn_with_all_ranks(tmp_path: Path) -> None:
    trace = written(tmp_path, rank_trace(0), rank_trace(1, ahead=7 * MS, error=2000))
    text = timeline.draw(trace)
    picture = Picture(text)
    assert "step 1, 10 ms" in text and "Times of two ranks agree within 2 us." in text
    assert "rank 0: device 0" in text and "rank 1: device 1" in text
    for words in ("backward, 6 ms", "wait for <b>, 4 ms", "conv1 forward, 2 ms"):
        assert picture.titles.count(words) == 2, words
    assert not any("direct" in title for title in picture.titles), "kernels are in the file alone"
    assert picture.lines == 1
    assert {f"messages {row}" for row in (1, 2)} <= set(trace.rows.values())


def test_clocks_are_aligned_and_drift_between_two_readings_is_taken_out() -> None:
    apart = rank_trace(1, ahead=123_456_789, drift=300_000)
    for mine, true in zip(apart.aligned(), rank_trace(1).spans, strict=True):
        assert abs(mine.begin - true.begin) < 1000 and abs(mine.end - true.end) < 1000


def test_a_message_with_one_end_is_not_drawn_and_has_no_arrow() -> None:
    found = trace_file.document([rank_trace(0), rank_trace(1)], {})
    ends = [event["ph"] for event in found["traceEvents"] if event["ph"] in "sf"]
    assert sorted(ends) == ["f", "s"]
    alone = trace_file.document([rank_trace(0)], {})
    assert not [event for event in alone["traceEvents"] if event["ph"] in "sf"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, None),
        ("", "it is no trace"),
        ("[]", "it is no trace"),
        ('{"traceEvents": 3}', "it is no trace"),
        ('{"traceEvents": [{"ph": "X", "pid": "a", "tid": 0}]}', "it is no trace"),
        ('{"traceEvents": [{"ph": "X", "pid": 0, "tid": 0, "name": "x"}]}', "it is no trace"),
        ('{"traceEvents": [{"ph": "X", "pid": Infinity, "tid": 0}]}', "it is no trace"),
        ("[" * 100_000, "it is no trace"),
        ('{"traceEvents": [1, "a", null], "otherData": 7}', "trace.json is empty"),
        (json.dumps(trace_file.unfinished([0, 1], "nothing <b>")), "trace.json: nothing <b>"),
    ],
)
def test_where_there_is_none_it_is_said_why(
    content: str | None, words: str | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "trace.json").write_text(content)
    found = timeline.read(tmp_path)
    assert found is None if words is None else isinstance(found, str) and words in found


def test_odd_numbers_of_a_file_from_elsewhere_do_no_harm(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {"ph": "X", "pid": 0, "tid": 1, "name": "step 1", "cat": STEP, "ts": 0, "dur": 0},
        {
            "ph": "X",
            "pid": 0,
            "tid": 1,
            "name": "<b>",
            "cat": "<b>",
            "ts": 0,
            "dur": 5,
            "args": {"<b>": "\x1b\x00"},
        },
        {"ph": "X", "pid": 0, "tid": 1, "name": "x", "cat": MAIN, "ts": 1e300, "dur": 1e300},
        {"ph": "X", "pid": 0, "tid": 1, "name": None, "cat": MAIN, "ts": "1", "dur": -1},
        {"ph": "s", "pid": 0, "tid": 9, "id": [1], "ts": True},
        {"ph": "f", "pid": 0, "tid": 1, "id": [1], "ts": 1},
    ]
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": odd}))
    found = timeline.read(tmp_path)
    assert isinstance(found, timeline.Trace)
    text = timeline.draw(found)
    Picture(text)
    assert "\x1b" not in text and "\x00" not in text
