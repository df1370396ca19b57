"""What happens when on this rank, for `--trace`: spans of time, kept in memory until a file is made
of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter_ns as now
from typing import Any

SPANS_MAX = 50_000
"""Spans of a rank that are kept, some 8 MB of the file: what comes later is counted, not kept."""
STEP, MAIN, EXCHANGE, DEVICE, SECOND = "step", "main", "exchange", "device", "second"
IMAGES, MESSAGES = "images", "message"
"""Rows of a rank. Spans of MESSAGES may overlap, and are laid out in several rows; those of other
rows lie side by side or within each other."""
THREADS = {"MainThread": MAIN, "exchange": EXCHANGE}
"""Row of what a thread does, by the thread's name."""

Key = Sequence[Any]
"""Names one message alike on both of its ends."""


@dataclass
class Span:
    """Something that took time; also as a list in the order of the fields."""

    row: str
    name: str
    begin: int
    """Nanoseconds of this process's clock (time.perf_counter_ns)."""
    end: int
    facts: dict[str, Any] = field(default_factory=dict)
    """What a viewer shows beside it."""
    sent: list[Key] = field(default_factory=list)
    """Messages that set out at its begin."""
    received: list[Key] = field(default_factory=list)
    """Messages that were known to be here at its end."""

    def as_list(self) -> list[Any]:
        return list(asdict(self).values())


class Trace:
    """Spans of one rank, noted while it is `on`. Several threads may note some at once."""

    def __init__(self) -> None:
        self.on = False
        self.spans: list[Span] = []
        self.left_out = 0
        """Spans beyond SPANS_MAX."""
        self.bucket: int | None = None
        """Number of the bucket that the exchange works on at this moment."""
        self.words: Mapping[int, str] = {}
        """What travels on each lane of the exchange."""
        self.barriers: Mapping[int, str] = {}
        """What is so when a barrier on each lane is done; others are not noted."""
        self.settlers: dict[str, Callable[[], None]] = {}
        """By name: who has more to note when a step is over and nothing is on its way."""
        self.reading: Sequence[int] = ()
        """Of the clocks, when the trace began."""
        self._step: tuple[str, int] | None = None
        self._phase: tuple[str, int] | None = None

    def begin(self, reading: Sequence[int]) -> None:
        """Note what begins from now on."""
        self.spans, self.left_out, self.reading, self.on = [], 0, reading, True

    def add(self, span: Span) -> None:
        """Note something that has ended, if it began while the trace was on."""
        if not self.on:
            return
        if len(self.spans) >= SPANS_MAX:
            self.left_out += 1
        else:
            self.spans.append(span)

    @contextmanager
    def span(self, name: str, **facts: Any) -> Iterator[None]:
        """Note what happens inside, in the row of the thread that does it."""
        begin = now()
        yield
        row = THREADS.get(threading.current_thread().name, MAIN)
        self.add(Span(row, name, begin, now(), facts))

    def phase(self, name: str, step: int | None = None) -> None:
        """The main thread begins something else; step: and with it this step."""
        if not self.on or (step is None and self._phase and self._phase[0] == name):
            return
        self._close_phase(at := now())
        if step is not None:
            self._close_step(at)
            self._step = f"step {step}", at
        self._phase = name, at

    def settle(self) -> None:
        """The phase and the step that have begun last are over."""
        at = now()
        self._close_phase(at)
        self._close_step(at)
        for settle in self.settlers.values():
            settle()

    def stop(self) -> None:
        """Note no more; what was noted stays."""
        if self.on:
            self.settle()
        self.on = False

    def _close_phase(self, at: int) -> None:
        if self._phase:
            self.add(Span(MAIN, *self._phase, at))
        self._phase = None

    def _close_step(self, at: int) -> None:
        if self._step:
            self.add(Span(STEP, *self._step, at))
        self._step = None
