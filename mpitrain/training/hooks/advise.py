"""Say once whether --dense split would be faster: what of a step's exchange it would save, against
what its activations take on this job's links."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from mpitrain.job.config import LARGE_DENSE
from mpitrain.layers.dense.split import SplitDense
from mpitrain.layers.dense.travel import TravellingRows
from mpitrain.layers.layer import size
from mpitrain.network.graph import parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.split import split

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World

WARM, STEPS = 2, 5
"""Steps of a run that do not count, since they compile; and those that do."""
TIME_MAX = 0.9
"""The share of a step's time that is worth a line."""
TURNS = 3
"""How often the activations of a step are sent to time them."""


class Advise:
    """With --dense auto, on several ranks: looks at some steps, and then speaks or is silent."""

    name = "advise"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._begins = plan.begun + WARM
        self._seen: list[tuple[float, float]] = []

    def due(self, progress: Progress) -> bool:
        auto = self._plan.run.dense == "auto" and self._plan.run.on_failure == "stop"
        return auto and self._begins < progress.step <= self._begins + STEPS

    def run(self, world: World, progress: Progress) -> Progress:
        assert progress.last is not None
        seconds = progress.last.seconds
        self._seen.append((seconds["total"], seconds["exchange"]))
        if len(self._seen) == STEPS and world.wire.ranks.size > 1:
            now = tuple(map(median, zip(*self._seen, strict=True)))
            words = advice(world, *world.wire.agree.table(np.array(now)).max(axis=0).tolist())
            if words:
                world.local.display.say(f"step {progress.step}: {words}")
        return progress


def advice(world: World, total: float, exchanged: float) -> str:
    """What to say of steps of `total` seconds, of which the exchange takes `exchanged` that nothing
    hides: the slowest rank's, the same on every rank. Empty if splitting saves little. Collective.

    The exchange that is left is taken to shrink as its values do. (It shrinks by more where the
    backward pass hides what is left.)
    """
    network, wire = world.plan.network, world.wire
    placed = split(network, wire.activations, LARGE_DENSE)
    shapes = infer_shapes(network)
    every = parameters_of(placed, shapes).values()
    values = sum(size(each.whole) for each in every)
    saved = exchanged * sum(size(each.whole) for each in every if each.placement) / values
    if total - saved > TIME_MAX * total:
        return ""
    rows = [
        TravellingRows(node.layer, *(shapes[name] for name in node.inputs))
        for node in placed.nodes
        if isinstance(node.layer, SplitDense)
    ]
    turns = []
    for _ in range(TURNS):
        wire.agree.barrier()
        begin = time.perf_counter()
        for each in rows:
            each.forward(world.feed.counts)
            each.backward(world.feed.counts)
        turns.append(time.perf_counter() - begin)
    least = float(wire.agree.table(np.array(turns)).max(axis=0).min())
    instead = total - saved + least
    if instead > TIME_MAX * total:
        return ""
    return f"--dense split would take about {instead:.2g} s a step, whole layers take {total:.2g} s"
