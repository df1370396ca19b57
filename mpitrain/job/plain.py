"""Words from files on a terminal: what would move its cursor, or look like lines of ours, is
escaped."""

from __future__ import annotations


def plain(text: str) -> str:
    """A text on one line, all of it to be seen: what cannot be printed as Python would write it."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def paragraph(text: str) -> str:
    """A text of several lines (a compiler's), those after the first indented: none can pass for the
    beginning of a message."""
    return "\n  ".join(plain(line) for line in text.split("\n"))
