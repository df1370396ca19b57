"""A table with a title and notes, for a terminal and for a page in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """Cells are text already; rows are as long as `headings`."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    """Sentences below the table."""
    words: int = 1
    """The first so many columns hold words, and stand on the left."""

    def rich(self) -> Table:
        """For a terminal or a text file."""
        table = Table(
            title=self.title,
            title_justify="left",
            caption="\n".join(self.notes) or None,
            caption_justify="left",
        )
        for place, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if place < self.words else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page."""
        marks = ["---" if place < self.words else "---:" for place in range(len(self.headings))]
        table = "\n".join(
            f"| {' | '.join(cells)} |" for cells in (self.headings, marks, *self.rows)
        )
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join(part for part in (f"{self.title}.", table, notes) if part)


def middle(spread: Sequence[float], scale: float = 1) -> str:
    """Median (minimum to maximum) in a cell; of one turn, what it was."""
    low, median, high = (short(scale * each) for each in spread)
    return median if min(spread) == max(spread) else f"{median} ({low} to {high})"


def short(value: float) -> str:
    """Three digits that count, and all those before the point."""
    return f"{value:.3g}" if 0 < abs(value) < 100 else f"{value:,.0f}"
