"""No string of a file reaches the terminal as anything but what can be read."""

from __future__ import annotations

import pytest

from mpitrain.job.plain import paragraph, plain


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("cat", "cat"),
        ("Käse, 猫 and ½", "Käse, 猫 and ½"),
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("a\nmpitrain: done", "a\\nmpitrain: done"),
        ("a\rb\tc\x00", "a\\rb\\tc\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("not UTF-8 \udcff", "not UTF-8 \\udcff"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, seen: str) -> None:
    assert plain(text) == seen


def test_later_lines_of_a_message_are_indented() -> None:
    assert paragraph("one\nmpitrain: two\x07") == "one\n  mpitrain: two\\x07"
