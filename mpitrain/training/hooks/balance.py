"""Who is slow, and how a batch is divided so that nobody waits for it: seconds of each rank in,
speeds out.

Gradients are sums over images, divided once by the batch, so how many a rank has changes their last
bits alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World

FIRST, EVERY = 5, 20
"""Steps that are measured before the first word, and between later ones."""
WARM = 2
"""Steps at a run's beginning that do not count: they compile, and touch all memory."""
COST = 0.1
"""Share of a step that one rank must cost to be named."""


PLAIN = 4.0
"""Share from which on one look is enough; below it a rank is named when two in a row find it, for
on a busy machine now one rank is slow, now another."""


@dataclass(frozen=True)
class Found:
    """What some steps have shown, the same on every rank."""

    speeds: tuple[float, ...]
    """Images a second of each rank, halfway between what was known and what was measured: what
    disturbs a rank for a moment moves few."""
    straggler: int | None
    """The rank that makes steps longer by more than COST, if one does."""
    cost: float
    """By how much it does: 0.3 for 30 % longer than if it were as fast as the others' median.
    Rounded here, so that words and log agree."""


class Balance:
    """Takes every rank's seconds of each step, and says at times what they show."""

    def __init__(self, speeds: Sequence[float] | None = None) -> None:
        """speeds: known from before, for a run that goes on."""
        self.speeds = tuple(speeds) if speeds else None
        self._steps = -WARM
        self._next = FIRST
        self._seen: list[list[float]] = []

    def note(self, images: Sequence[int], seconds: Sequence[float]) -> Found | None:
        """A step's images and seconds of computing of each rank. Returns what was found when there
        have been enough steps, else None."""
        self._steps += 1
        if self._steps <= 0 or min(seconds) <= 0:
            return None
        self._seen.append([time / count for time, count in zip(seconds, images, strict=True)])
        if len(self._seen) < self._next:
            return None
        each = [statistics.median(row[rank] for row in self._seen) for rank in range(len(images))]
        self._seen, self._next = [], EVERY
        known = self.speeds or tuple(1 / time for time in each)
        self.speeds = tuple((speed / time) ** 0.5 for speed, time in zip(known, each, strict=True))
        rank, cost = straggler(images, each)
        return Found(self.speeds, rank if cost > COST else None, round(cost, 3))


class Divide:
    """Now and then: names a rank that the others wait for, and with --balance speed divides batches
    anew."""

    name = "balance"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._balance: Balance | None = None
        self._ranks: tuple[int, ...] = ()
        self._last: int | None = None
        self._named: set[int] = set()

    def due(self, progress: Progress) -> bool:
        return progress.step > self._plan.begun

    def run(self, world: World, progress: Progress) -> Progress:
        wire, feed, report, by_speed = world.wire, world.feed, progress.last, self._plan.by_speed
        if wire.ranks.size == 1:
            return progress
        if self._balance is None or self._ranks != tuple(wire.ranks.numbers):
            self._balance, self._ranks = Balance(feed.speeds), tuple(wire.ranks.numbers)
            self._last = None
            if wire.ranks.bereaved:
                return progress  # some ranks may not have heard the end of this step
        assert report is not None
        images = [part.stop - part.start for part in feed.current_parts]
        found = self._balance.note(images, report.compute_seconds)
        if found is None:
            return progress
        if by_speed:
            feed.divide(found.speeds)
        parts = [part.stop - part.start for part in feed.next_parts]
        late = None if found.straggler is None else wire.ranks.numbers[found.straggler]
        persists = late == self._last or found.cost >= PLAIN
        self._last = late
        if late is not None and persists and late not in self._named:
            self._named.add(late)
            hint = "--balance speed gives it fewer images"
            if by_speed:
                hint = f"it gets {parts[found.straggler or 0]} images of {self._plan.batch_size}"
            world.local.display.say(
                f"step {progress.step}: rank {late} makes steps {found.cost:.0%} longer; {hint}"
            )
        if by_speed or late is not None:
            speeds = [round(speed, 2) for speed in found.speeds]
            world.local.log.event(
                "balance",
                step=progress.step,
                parts=parts,
                speeds=speeds,
                straggler=late,
                cost=found.cost,
            )
        return progress


def straggler(images: Sequence[int], each: Sequence[float]) -> tuple[int, float]:
    """The rank that takes longest, and by which share it makes the step longer than if its images
    took as long as the others' median.

    each: seconds an image, of each rank.
    """
    times = [count * time for count, time in zip(images, each, strict=True)]
    rank = max(range(len(times)), key=lambda each_rank: times[each_rank])
    if len(times) == 1:
        return rank, 0.0
    others = [time for other, time in enumerate(each) if other != rank]
    rest = [time for other, time in enumerate(times) if other != rank]
    return rank, max(0.0, times[rank] / max(*rest, images[rank] * statistics.median(others)) - 1)
