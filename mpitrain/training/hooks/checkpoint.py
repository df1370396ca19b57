"""Write a checkpoint: every so many steps or epochs, at the end of a run, and of the best score."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpitrain.job import checkpoint
from mpitrain.job.config import kept
from mpitrain.job.errors import RunError
from mpitrain.network.models import netfile
from mpitrain.training.step import diverged

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World


class Checkpoint:
    """Rank 0 writes weights, momentum, residuals and settings; the others send what is theirs."""

    name = "checkpoint"

    def __init__(self, plan: Plan) -> None:
        self._plan, self._every = plan, plan.every("checkpoint_every")
        self._count, self._keeps_best = kept(plan.run.keep)

    def due(self, progress: Progress) -> bool:
        if self._plan.simulated:
            return False  # nothing has been learnt
        due = self._plan.is_over(progress) or progress.step % self._every == 0
        return due or self._is_best(progress)

    def _is_best(self, progress: Progress) -> bool:
        best = progress.best
        return self._keeps_best and best is not None and best.step == progress.step

    def run(self, world: World, progress: Progress) -> Progress:
        """Raises RunError, on every rank, rather than write weights that are not finite."""
        local, t = world.local, progress.step
        begin = time.perf_counter()
        local.log.catch_up()
        local.watch.at("checkpoint", t)
        local.fault("checkpoint", t)
        if not all(world.wire.agree.gather_facts(world.state.is_finite())):
            raise diverged(world, t, "the weights are not finite (NaN or infinite)")
        local.log.check_place()
        world.state.average_statistics()
        path = checkpoint.path_of(world.plan.folder / "checkpoints", t)
        try:
            world.state.save(path, _settings(world, progress))
            if world.wire.ranks.rank == 0:
                self._keep(path, progress)
        except RunError:
            # Says more than "no such file" where the disk has gone meanwhile.
            local.log.check_place()
            raise
        seconds = round(time.perf_counter() - begin, 3)
        local.log.event("checkpoint", step=t, path=str(path), seconds=seconds)
        return progress

    def _keep(self, path: Path, progress: Progress) -> None:
        """Remove those that are too old."""
        if self._is_best(progress):
            checkpoint.point_to(path)
        best = progress.best if self._keeps_best else None
        stays = checkpoint.path_of(path.parent, best.step) if best else None
        checkpoint.prune(path.parent, self._count, stays)


def _settings(world: World, progress: Progress) -> dict[str, Any]:
    """What a checkpoint says of the run that it is of."""
    plan, local = world.plan, world.local
    mean, std = local.graph.normal
    return {
        "network": netfile.encode(plan.network),
        "name": plan.network.name,
        "step": progress.step,
        "run": asdict(plan.run),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "classes": list(local.dataset.class_names) if local.dataset else [],
        "ranks": world.wire.ranks.size,
        "exchange": plan.exchange,
        "coders": world.exchange.coder_count,
        "coded_from": plan.coded_from,
        "longest_bucket": plan.longest_bucket,
        "images": plan.prepared.count,
        "identity": plan.prepared.identity,
        "sub_batch": plan.sub_batch,
        "split": list(local.graph.own_layout.slots),
        "speeds": world.feed.speeds if plan.by_speed else None,
        "best": asdict(progress.best) if progress.best else None,
        "waited": progress.waited,
    }
