"""Score the test images, shared among ranks: loss, top-1 and top-5."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mpitrain.data.dataset import Images, Labels
from mpitrain.data.reader import Reader
from mpitrain.data.source import Split
from mpitrain.job.config import is_made_up
from mpitrain.layers.accuracy import Accuracy
from mpitrain.layers.layer import Pass
from mpitrain.mpi.wire import Wire
from mpitrain.network.graph import Graph
from mpitrain.training.confusion import Confusion
from mpitrain.training.step import diverged

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World


@dataclass(frozen=True)
class Scores:
    """Means over test images; top1 and top5 are shares of 1."""

    loss: float
    top1: float
    top5: float
    images: int

    def words(self, classes: int) -> str:
        """For a line; the best five of five classes are always right."""
        top5 = f"  top-5 {self.top5:.4f}" if classes > 5 else ""
        return f"loss {self.loss:.4f}  top-1 {self.top1:.4f}{top5}  ({self.images} images)"


@dataclass(frozen=True)
class Best:
    """The best score so far."""

    step: int
    top1: float
    loss: float

    def is_beaten_by(self, scores: Scores) -> bool:
        """By a higher top-1, or the same and a lower loss."""
        return (scores.top1, -scores.loss) > (self.top1, -self.loss)


class Evaluate:
    """Every so many steps or epochs, and after the last step where images are real."""

    name = "evaluate"

    def __init__(self, plan: Plan) -> None:
        self._plan, self._every = plan, plan.every("evaluate_every")

    def due(self, progress: Progress) -> bool:
        plan, t = self._plan, progress.step
        # A signal gives little time: the checkpoint comes before anything else.
        if not plan.prepared.tests or plan.simulated or progress.stop or t <= plan.begun:
            return False
        last = t == plan.steps and not is_made_up(str(plan.run.data))  # whose score says nothing
        return t % self._every == 0 or last

    def run(self, world: World, progress: Progress) -> Progress:
        """Raises RunError on every rank for weights that the last update has spoilt."""
        local, t = world.local, progress.step
        local.log.catch_up()
        local.watch.at("evaluate", t)
        local.fault("evaluate", t)
        world.state.average_statistics()
        test = local.dataset.test if local.dataset else None
        count = self._plan.prepared.tests
        with local.average.in_place() if local.average else nullcontext():
            found = score(
                world.wire,
                local.graph,
                test,
                count,
                lambda: local.watch.at("evaluate", t),
                local=self._plan.reading.local,
            )
        if not math.isfinite(found.loss):
            raise diverged(world, t, f"the loss on the test images is {found.loss}")
        local.log.event("evaluate", step=t, **asdict(found))
        local.display.say(f"Test:  step {t:6d}  {found.words(self._plan.network.classes)}")
        return self._judge(world, replace(progress, scores=found))

    def _judge(self, world: World, progress: Progress) -> Progress:
        """Whether the new scores are the best ones, and whether the run's patience is over."""
        scores, best, t = progress.scores, progress.best, progress.step
        assert scores is not None
        if best is None or best.is_beaten_by(scores):
            return replace(progress, best=Best(t, scores.top1, scores.loss), waited=0)
        progress = replace(progress, waited=progress.waited + 1)
        patience = self._plan.run.patience
        if patience is None or progress.waited < patience or t >= self._plan.steps:
            return progress
        world.local.log.event("early", step=t, best_step=best.step, best_top1=best.top1)
        world.local.display.say(
            f"step {t}: no better score in {progress.waited} evaluations than top-1 "
            f"{best.top1:.4f} at step {best.step}; the run ends early (--patience {patience})"
        )
        return replace(progress, early=True)


def score(
    wire: Wire,
    graph: Graph,
    split: Split | None,
    count: int,
    alive: Callable[[], None] = lambda: None,
    confusion: Confusion | None = None,
    local: bool = False,
) -> Scores:
    """Collective. Rank 0 holds the split of `count` images and sends each rank its part, a graph's
    capacity at a time; with `local` each rank holds it, and reads its own part.

    confusion: it counts them all, on every rank.
    """
    accuracy = Accuracy(graph.device, graph.network.classes)
    rank_of = graph.device.empty((graph.capacity,), np.int32)
    batch = min(wire.agree.gather_facts(graph.capacity)) * wire.ranks.size
    shape = graph.network.input_shape
    dtype = np.dtype(wire.agree.from_root(lambda: str(split.dtype) if split else ""))
    sums = np.zeros(3)
    reader = Reader(split) if split is not None else None

    def shares(first: int) -> list[slice]:
        total = min(batch, count - first)
        cuts = [total * rank // wire.ranks.size for rank in range(wire.ranks.size + 1)]
        return [slice(start, stop) for start, stop in pairwise(cuts)]

    def begin(first: int) -> Callable[[], tuple[Images, Labels]] | None:
        if reader is None or first >= count:
            return None
        parts = shares(first)
        mine = parts[wire.ranks.rank] if local else slice(0, parts[-1].stop)
        return reader.begin(partial(reader.read, np.arange(first + mine.start, first + mine.stop)))

    wait = begin(0)
    for first in range(0, count, batch):
        images, wide = wait() if wait else (None, None)
        wait = begin(first + batch)  # while these are computed
        labels = None if wide is None else wide.astype(np.int32)
        if not local:
            sent = wire.scatter.start(images, labels, shares(first), shape, dtype)
            images, labels = sent.wait()
        assert images is not None and labels is not None
        if len(images) or graph.together:
            counts = tuple(share.stop - share.start for share in shares(first))
            run = Pass(len(images), training=False, everyone=counts if graph.together else ())
            graph.load(images, labels)
            graph.forward(run)
        if len(images):
            accuracy(rank_of, graph.scores, graph.labels, len(images))
            places = rank_of.reshape((len(images),)).download()
            sums += (
                graph.losses(len(images)).sum(dtype=np.float64),
                (places < 1).sum(),
                (places < 5).sum(),
            )
            if confusion is not None:
                scores = graph.scores.reshape((len(images), graph.network.classes))
                confusion.add(labels, scores.download())
        alive()
    if confusion is not None:
        found = confusion.counts
        mine = found.astype(np.float64).reshape(-1)  # which holds counts exactly
        found[:] = wire.agree.sum(mine).reshape(found.shape)
    if reader is not None:
        reader.close()
    loss, top1, top5 = wire.agree.sum(sums) / count
    return Scores(float(loss), float(top1), float(top5), count)
