"""The host stays near a device, but ahead of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mpitrain.runtime.lead import LEAST, PIECE, PIECES_AHEAD, Lead


def test_the_host_waits_for_what_it_queued_a_while_ago() -> None:
    waited: list[int] = []
    marks = iter(range(100))

    def mark() -> Any:
        number = next(marks)
        return SimpleNamespace(wait=lambda: waited.append(number))

    needed = [True]
    device: Any = SimpleNamespace(mark=mark)
    whole = 2 * LEAST / PIECE
    lead = Lead(device, whole, lambda: needed[0])
    piece = whole * PIECE
    for _ in range(PIECES_AHEAD):
        lead.queued(piece)
    assert waited == []
    lead.queued(piece / 2)
    assert waited == []
    lead.queued(piece / 2)
    assert waited == [0]
    lead.queued(0.0)
    lead.queued(10 * piece)  # one layer
    assert waited == [0, 1]
    needed[0] = False
    for _ in range(2 * PIECES_AHEAD):
        lead.queued(piece)
    assert waited == [0, 1]
    needed[0] = True
    for _ in range(PIECES_AHEAD):  # what was queued meanwhile is not waited for
        lead.queued(piece)
    assert waited == [0, 1]
    lead.queued(piece)
    assert waited == [0, 1, 4]


def test_a_device_is_not_looked_at_for_little_work() -> None:
    def mark() -> Any:
        raise AssertionError("it is")

    device: Any = SimpleNamespace(mark=mark)
    lead = Lead(device, LEAST, lambda: True)
    for _ in range(9):
        lead.queued(LEAST / 10)
