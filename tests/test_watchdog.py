"""The watchdog bites once when nothing moves, and not before."""

from __future__ import annotations

import threading

import pytest

from mpitrain import watchdog
from mpitrain.report import STALLED
from mpitrain.watchdog import Watchdog


def test_standing_still_ends_the_job_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bitten, ended = threading.Event(), threading.Event()
    codes: list[int] = []
    monkeypatch.setattr(watchdog, "GRACE", 0.1)
    monkeypatch.setattr("os._exit", lambda code: (codes.append(code), ended.set()))
    dog = Watchdog(3, 0.2, lambda code: (codes.append(code), bitten.set(), dog.stop()))
    dog.at("exchange", 7)
    assert bitten.wait(30) and ended.wait(30)
    assert codes == [STALLED, STALLED]
    assert "rank 3: no progress for 0.2 s in exchange at step 7" in capsys.readouterr().err


def test_progress_and_the_end_keep_it_quiet() -> None:
    bitten = threading.Event()
    dog = Watchdog(0, 5.0, lambda code: bitten.set())
    for _ in range(20):
        dog.at("forward", 1)
        assert not bitten.wait(0.05)
    dog.stop()
    assert dog.phase == "forward" and dog.step == 1
