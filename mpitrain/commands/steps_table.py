"""`mpitrain report RUN --csv FILE`: the steps and tests of runs as a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpitrain.commands.run_record import SECONDS, STEP, TEST, Record
from mpitrain.job.errors import UserError

WHOLE = ("epoch", "images", "bytes_sent", "sampled_bucket", "flushed")
"""Columns of whole numbers."""
COLUMNS = (
    "run",
    "step",
    *STEP,
    *(f"seconds_{name}" for name in SECONDS),
    *(f"test_{name}" for name in TEST),
)
"""Names that stay as they are; new ones come at the end."""


def write(records: Sequence[Record], names: Sequence[str], path: Path) -> Path:
    """Write a row for each step and each test after it. Raises UserError if that cannot be."""
    try:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for record, name in zip(records, names, strict=True):
                table.writerows(_rows(record, name))
    except OSError as error:
        raise UserError(f"--csv {path} cannot be written: {error.strerror or error}") from None
    return path


def _rows(record: Record, name: str) -> Iterator[list[str]]:
    """In ascending order of steps; what the log does not have is empty."""
    steps = {step: place for place, step in enumerate(record.steps.step)}
    tests = {step: place for place, step in enumerate(record.tests.step)}
    for step in sorted({*steps, *tests}):
        row = [name, str(step)]
        for series, place, columns in (
            (record.steps, steps.get(step), (*STEP, *SECONDS)),
            (record.tests, tests.get(step), TEST),
        ):
            row += [
                "" if place is None else _number(series[column][place], column in WHOLE)
                for column in columns
            ]
        yield row


def _number(value: float, whole: bool) -> str:
    """As short as it can be without loss."""
    if math.isnan(value):
        return ""
    return str(int(value)) if whole and value.is_integer() else repr(value)
