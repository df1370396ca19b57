"""docs/troubleshooting.md quotes messages as the code prints them, so that a reader finds them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text().partition("## In words of other")[0]
ROWS = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
VALUE = "\0"
"""What stands for a value in a text of the code."""


@cache
def texts() -> tuple[str, ...]:
    """Every text in the package, with a mark for each value that is put into it."""
    found: list[str] = []
    for path in sorted((ROOT / "mpitrain").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        comments = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else VALUE
                    for part in node.values
                )
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and id(node) not in comments:
                found.append(str(node.value))
    return tuple(found)


def written(message: str) -> bool:
    """Whether the code has a text with these words in this order, `...` for what may vary."""
    pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
    return any(pattern.search(text) for text in texts())


@pytest.mark.parametrize("message", [row[0] for row in ROWS])
def test_a_message_is_one_that_the_code_prints(message: str) -> None:
    assert len(message.replace("...", "")) > 12, "too few words to find it by"
    assert written(message)


def test_each_message_stands_once_with_its_meaning_and_what_to_do() -> None:
    messages = [row[0] for row in ROWS]
    assert 40 <= len(messages) == len(set(messages))
    assert len(messages) == PAGE.count("\n| `")
    assert all(meaning.strip() and advice.strip() for _, meaning, advice in ROWS)


def test_words_that_the_code_does_not_have_are_not_found() -> None:
    assert written("--device ...: no such OpenCL device; found: ...")
    assert not written("--device ...: no such OpenGL device; found: ...")
    assert not written("found: ... no such OpenCL device")
