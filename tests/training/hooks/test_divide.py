"""Who is named and how batches are divided, on a made-up world of two ranks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mpitrain.data.share import parts
from mpitrain.training.hooks.balance import EVERY, FIRST, WARM, Divide
from mpitrain.training.plan import Progress

SLOW = (0.1, 0.6)


class Feed:
    """Parts of a batch of 64."""

    speeds: tuple[float, ...] | None = None

    def __init__(self) -> None:
        self.next_parts = self.current_parts = parts(64, 2)

    def divide(self, speeds: tuple[float, ...]) -> None:
        self.speeds = speeds
        self.next_parts = self.current_parts = parts(64, 2, speeds)


def run(
    by_speed: bool, steps: int, seconds_of: Callable[[int], tuple[float, float]] = lambda _: SLOW
) -> tuple[Feed, list[str], list[dict[str, Any]]]:
    """What is said and logged in so many steps.

    seconds_of: step -> seconds an image of both ranks; rank 1 takes 6 times as long.
    """
    said: list[str] = []
    logged: list[dict[str, Any]] = []
    plan: Any = SimpleNamespace(by_speed=by_speed, batch_size=64, begun=0)
    feed = Feed()
    local = SimpleNamespace(
        display=SimpleNamespace(say=said.append),
        log=SimpleNamespace(event=lambda name, **facts: logged.append({"event": name, **facts})),
    )
    world: Any = SimpleNamespace(
        wire=SimpleNamespace(ranks=SimpleNamespace(size=2, numbers=(0, 3), bereaved=False)),
        feed=feed,
        local=local,
    )
    hook = Divide(plan)
    for step in range(1, steps + 1):
        seconds = [
            (part.stop - part.start) * each
            for part, each in zip(feed.current_parts, seconds_of(step), strict=True)
        ]
        report: Any = SimpleNamespace(compute_seconds=tuple(seconds))
        progress = Progress(step, last=report)
        assert hook.due(progress)
        hook.run(world, progress)
    return feed, said, logged


def test_a_straggler_is_named_once_by_the_number_it_had_when_the_job_began() -> None:
    _, said, logged = run(by_speed=False, steps=WARM + FIRST + 2 * EVERY)
    assert said == [
        f"step {WARM + FIRST}: rank 3 makes steps 500% longer; --balance speed gives it fewer "
        "images"
    ]
    assert [event["straggler"] for event in logged] == [3, 3, 3]


def test_a_rank_that_is_slow_for_a_moment_is_not_named_and_one_that_stays_slow_once() -> None:
    """Each look finds another rank, as on a machine where others compute; then it is always the
    same."""

    def seconds_of(step: int) -> tuple[float, float]:
        look = max(0, step - WARM - FIRST - 1) // EVERY + (step > WARM + FIRST)
        return (0.15, 0.1) if look in (0, 2) else (0.1, 0.15)

    _, said, logged = run(False, WARM + FIRST + 6 * EVERY, seconds_of)
    assert [event["straggler"] for event in logged] == [0, 3, 0, 3, 3, 3, 3]
    (line,) = said
    assert line.startswith(f"step {WARM + FIRST + 4 * EVERY}: rank 3 makes steps 50% longer")


def test_by_speed_the_slow_rank_gets_fewer_images() -> None:
    feed, _, logged = run(by_speed=True, steps=WARM + FIRST)
    lengths = [part.stop - part.start for part in feed.next_parts]
    assert lengths == [55, 9]
    assert logged[-1]["parts"] == lengths


def test_nothing_is_due_before_a_step_has_been_done() -> None:
    plan: Any = SimpleNamespace(by_speed=True, batch_size=64, begun=0)
    assert not Divide(plan).due(Progress(0))
