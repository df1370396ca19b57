"""The watchdog bites once when nothing moves, and not before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from mpitrain.job.errors import STALLED
from mpitrain.watch import watchdog
from mpitrain.watch.watchdog import Watchdog


class Clock:
    """A clock that moves only when told, and knows how often it was looked at."""

    def __init__(self) -> None:
        self.now, self.looks = 0.0, 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.now

    def wait_for_looks(self) -> None:
        """Until the watchdog has looked at the time as it is now."""
        wanted, patience = self.looks + 2, 10_000
        while self.looks < wanted:
            time.sleep(0.001)
            patience -= 1
            assert patience, "nobody looks at the clock"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "last_words", lambda line: None)
    return clock


Start = Callable[[list[int]], tuple[Watchdog, threading.Thread]]


@pytest.fixture
def start(clock: Clock, exits: list[int]) -> Iterator[Start]:
    """Start a watchdog that notes its aborts in a list and gives up after 0.02 s; at the end it is
    stopped whatever happened."""
    started: list[tuple[Watchdog, threading.Thread]] = []

    def start(aborts: list[int]) -> tuple[Watchdog, threading.Thread]:
        before = set(threading.enumerate())
        dog = Watchdog(0, 0.02, aborts.append)
        (thread,) = set(threading.enumerate()) - before
        started.append((dog, thread))
        return started[-1]

    yield start
    for dog, thread in started:
        dog._ended.set()
        thread.join(10)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process would have exited with: as soon as the watchdog's timer is started."""
    codes: list[int] = []

    class Timer:
        def __init__(self, seconds: float, function: object, arguments: list[int]) -> None:
            assert seconds > 0
            self.code = arguments[0]

        def start(self) -> None:
            codes.append(self.code)

    threads = SimpleNamespace(Timer=Timer, Event=threading.Event, Thread=threading.Thread)
    monkeypatch.setattr(watchdog, "threading", threads)
    return codes


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


def test_it_aborts_once_even_if_the_abort_comes_back(
    clock: Clock, exits: list[int], start: Start
) -> None:
    aborts: list[int] = []
    _, thread = start(aborts)
    run_out(clock, thread)
    assert (aborts, exits) == ([STALLED], [STALLED])


def run_out(clock: Clock, thread: threading.Thread) -> None:
    """Let time go on, as it does for a process that runs, until the watchdog has bitten."""
    for _ in range(5000):
        if thread.is_alive():
            clock.now += 0.005
            thread.join(0.002)
    assert not thread.is_alive()


def test_time_in_which_it_was_stopped_itself_does_not_count(
    clock: Clock, exits: list[int], start: Start
) -> None:
    aborts: list[int] = []
    _, thread = start(aborts)
    clock.now += 1000
    clock.wait_for_looks()
    assert not aborts and thread.is_alive()
    run_out(clock, thread)
    assert aborts == [STALLED]


def test_progress_before_the_limit_keeps_it_quiet_for_ever(clock: Clock, start: Start) -> None:
    aborts: list[int] = []
    dog, _ = start(aborts)
    for step in range(10):
        clock.now += 0.015
        clock.wait_for_looks()
        dog.at("forward", step) if step % 2 else dog.at("forward")
    assert (aborts, dog.phase, dog.step) == ([], "forward", 9)


def test_when_the_work_is_done_it_watches_no_longer(clock: Clock, start: Start) -> None:
    aborts: list[int] = []
    dog, thread = start(aborts)
    clock.wait_for_looks()
    dog.stop()
    thread.join(10)
    assert not thread.is_alive() and not aborts
