"""What a run directory tells of its run: log.jsonl and config.toml, also while the run goes on."""

from __future__ import annotations

import bisect
import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpitrain.job import toml
from mpitrain.job.errors import UserError
from mpitrain.job.run_folder import holder

SECONDS = ("total", "compute", "exchange", "wait", "host", "data")
STEP = (
    "epoch", "loss", "lr", "images", "images_per_second", "cpu_seconds", "bytes_sent",
    "error_bound", "gradient_norm", "sampled_bucket", "measured_error", "flushed", "residual_norm",
)  # fmt: skip
TEST = ("loss", "top1", "top5", "images")
SMOOTHED_SHARE = 40
"""A point of a smoothed curve is the mean of one such part of all steps."""
LARGEST = 1e30
"""Numbers beyond it, either way, count as not finite: no picture has room for them."""


class Series:
    """Numbers by step, in ascending order of steps; NaN where the log has none."""

    def __init__(self, names: Sequence[str]) -> None:
        self.step = array("q")
        self._columns = {name: array("d") for name in names}

    def __getitem__(self, name: str) -> array[float]:
        return self._columns[name]

    def __len__(self) -> int:
        return len(self.step)

    @property
    def window(self) -> int:
        """Steps that one point of a smoothed curve is the mean of."""
        return max(1, len(self) // SMOOTHED_SHARE)

    def points(self, name: str) -> list[tuple[int, float]]:
        """The steps that have this number, with it."""
        pairs = zip(self.step, self[name], strict=True)
        return [(step, value) for step, value in pairs if math.isfinite(value)]

    def smoothed(self, name: str) -> list[tuple[int, float]]:
        """The mean of this number over each step and those before it, `window` in all."""
        points, window, total = self.points(name), self.window, 0.0
        found = []
        for place, (step, value) in enumerate(points):
            total += value - (points[place - window][1] if place >= window else 0.0)
            found.append((step, total / min(place + 1, window)))
        return found

    def cut(self, step: int) -> None:
        """Forget `step` and all later ones."""
        place = bisect.bisect_left(self.step, step)
        del self.step[place:]
        for column in self._columns.values():
            del column[place:]

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a step's numbers; they replace those of the same step and of later ones."""
        self.cut(step)
        self.step.append(step)
        for name, column in self._columns.items():
            column.append(number(values.get(name)))


@dataclass
class Record:
    """A run as its directory tells it. Steps that a resumed run did again count once."""

    folder: Path
    name: str
    """The folder's."""
    config: Mapping[str, Mapping[str, Any]]
    """The tables of config.toml; empty where it cannot be read."""
    holder: str | None
    """The process that holds the run directory; empty: none; None: cannot be told."""
    starts: list[Mapping[str, Any]] = field(default_factory=list)
    steps: Series = field(default_factory=lambda: Series((*STEP, *SECONDS, "first")))
    """`first` is 1 in the first step of each start, which compiles."""
    tests: Series = field(default_factory=lambda: Series(TEST))
    checkpoints: list[Mapping[str, Any]] = field(default_factory=list)
    lost: list[Mapping[str, Any]] = field(default_factory=list)
    stragglers: list[Mapping[str, Any]] = field(default_factory=list)
    early: Mapping[str, Any] | None = None
    """Why the run ended before its last step, if no better score came."""
    skipped: dict[str, None] = field(default_factory=dict)
    """Names of images that were left out."""
    end: Mapping[str, Any] | None = None
    written: float = math.nan
    """When the last line was written, in seconds since 1970."""
    damaged: int = 0
    """Lines that are no events."""
    cut_short: bool = False
    """Whether the last line is incomplete."""
    place: int = 0
    """Bytes of the log's complete lines that have been read."""

    @property
    def start(self) -> Mapping[str, Any]:
        """The last `start`; empty where the log has none."""
        return self.starts[-1] if self.starts else {}

    def usual(self, name: str) -> list[float]:
        """A number of all steps that have it, without the first one of each start if there are
        others."""
        pairs = zip(self.steps[name], self.steps["first"], strict=True)
        known = [(value, first) for value, first in pairs if math.isfinite(value)]
        return [value for value, first in known if not first] or [value for value, _ in known]

    def setting(self, name: str) -> Any:
        """A setting of the run from config.toml; None where there is none."""
        return self.config.get("run", {}).get(name)


def read(folder: Path) -> Record:
    """Read a run directory. Raises UserError for what is none, and where nothing is logged yet."""
    log = folder / "log.jsonl"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a run directory")
    if not log.is_file() and (who := holder(folder)):
        raise UserError(f"{folder}: a run begins in it ({who}) and has logged nothing yet")
    if not log.is_file():
        raise UserError(f"{folder}: no run directory, there is no log.jsonl in it")
    record = Record(folder, folder.resolve().name, _config(folder), holder(folder))
    read_on(record)
    if not (record.starts or len(record.steps) or len(record.tests)):
        raise UserError(f"{log}: no event of a run in it yet, so there is nothing to show")
    return record


def read_on(record: Record) -> None:
    """Read what has been logged since. Raises UserError if the log cannot be read."""
    log = record.folder / "log.jsonl"
    record.holder, record.cut_short = holder(record.folder), False
    try:
        with log.open("rb") as file:
            file.seek(record.place)
            for line in file:
                _take(record, line)
                if line.endswith(b"\n"):
                    record.place += len(line)
    except OSError as error:
        raise UserError(f"{log} cannot be read: {error.strerror or error}") from None


def number(value: Any) -> float:
    """A number of the log; NaN for what is none, or too large to be drawn."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    return float(value) if abs(value) < LARGEST else math.nan


def table(value: Any) -> Mapping[str, Any]:
    """A JSON object of the log; empty for what is none."""
    return value if isinstance(value, dict) else {}


def words(value: Any) -> list[str]:
    """A list of the log as strings; empty for what is none."""
    return [str(each) for each in value] if isinstance(value, list) else []


def _config(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        found = toml.parse((folder / "config.toml").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: table(facts) for name, facts in found.items()}


def _take(record: Record, line: bytes) -> None:
    """Put one line of the log into the record."""
    try:
        event = json.loads(line)
        kind, step = event["event"], event.get("step", 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        event = kind = step = None
    if not isinstance(step, int) or not 0 <= step < 2**53:
        record.cut_short = not line.endswith(b"\n")
        record.damaged += not record.cut_short and bool(line.strip())
        return
    record.written = number(event.get("time"))
    if kind == "start":
        record.starts.append(event)
        record.end = record.early = None
        record.steps.cut(step + 1)
        record.tests.cut(step + 1)
        record.checkpoints = [each for each in record.checkpoints if each["step"] <= step]
    elif kind == "step":
        begun = record.start.get("step", 0)
        first = {"first": int(step == begun + 1)}
        record.steps.add(step, {**event, **table(event.get("seconds")), **first})
    elif kind == "evaluate":
        record.tests.add(step, event)
    elif kind == "checkpoint":
        record.checkpoints.append({**event, "step": step})
    elif kind == "lost":
        record.lost.append(event)
    elif kind == "skip":
        record.skipped |= dict.fromkeys(words(event.get("names")))
    elif kind == "balance" and event.get("straggler") is not None:
        record.stragglers.append(event)
    elif kind == "early":
        record.early = event
    elif kind == "end":
        record.end = event
