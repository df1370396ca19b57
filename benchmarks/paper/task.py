"""What a task is: a table or a half figure of the paper, measured row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from paper.sheet import Sheet

Found: TypeAlias = dict[str, Any]
"""All that a task has found, as its JSON file has it: circumstances, facts about each side, and
`rows`."""


@dataclass(frozen=True)
class Options:
    """How to measure."""

    n: int
    """Counted turns of each side."""
    device: str
    """As for mpitrain's --device."""
    torch_python: str
    """A Python that may have torch."""
    small: bool
    """Sizes of a second or two, to see that all works: the figures say nothing."""


class Task(Protocol):
    """A module of this package."""

    TITLE: str
    """What it is in the paper, and what is measured."""

    def count(self, options: Options) -> int:
        """How many rows there will be, for a progress bar."""

    def measure(self, options: Options, found: Found) -> Iterator[dict[str, Any]]:
        """Measure a row and yield it, to be kept in found["rows"]; facts about the sides, and what
        is left out (found["left_out"], sentences), go straight into `found`."""

    def brief(self, row: Mapping[str, Any]) -> str:
        """A row while one waits for the next."""

    def sheets(self, found: Found) -> Sequence[Sheet]:
        """The paper's rows beside ours."""

    def draw(self, found: Found, path: Path) -> None:
        """The same as a picture."""


def leave_out(found: Found, what: str) -> None:
    """Say what is not measured, and why: the rest of a sentence after "Not measured:"."""
    found.setdefault("left_out", []).append(what)
