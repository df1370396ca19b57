"""A short run of fuzz_messages.py."""

from __future__ import annotations

import pytest
from fuzz_messages import KINDS, fuzz

COUNT = 300


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_messages_are_refused_or_taken_with_a_right_result(kind: str) -> None:
    found = fuzz(kind, COUNT, 1)
    assert found.total() >= COUNT
    assert found[True] > 9 and found[False] > 9, "both happen"
