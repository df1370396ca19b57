"""The loop of a training: steps, what comes between them, and going on without ranks that die."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mpitrain.mpi.wait import FAILURES
from mpitrain.training.hooks.compare import choose_sample
from mpitrain.training.hooks.hook import Hook
from mpitrain.training.plan import Progress
from mpitrain.training.recover import recover
from mpitrain.training.step import step
from mpitrain.training.world import World


def run(world: World, progress: Progress, hooks: Sequence[Hook]) -> tuple[World, Progress]:
    """Train to the last step, or to a signal. Returns the world of the ranks that are left, and how
    far they are."""
    try:
        while True:
            try:
                if progress.settled and not world.plan.is_over(progress):
                    progress = one_step(world, progress)
                for settled in settle(world, progress, hooks):
                    progress = settled  # a death in a hook leaves what those before it have done
                if world.plan.is_over(progress):
                    return world, progress
            except FAILURES as error:
                if world.undo is None:
                    raise
                world, progress = recover(world, progress, error)  # fewer ranks, the same batches
    finally:
        world.exchange.close()
        world.feed.close()


def one_step(world: World, progress: Progress) -> Progress:
    """A step, until all ranks have agreed that it is done: every rank then holds the new
    weights."""
    t = progress.step
    world.local.stop.listen()
    for sgd in (world.sgd, world.own.sgd if world.own else None):
        if sgd:
            sgd.rate = world.plan.rate(t)
    if world.undo:
        world.undo.begin(t)
    choose_sample(world.exchange, t + 1)
    progress = progress.after(step(world, t))
    if world.local.average:
        world.local.average.follow(t + 1)
    if world.undo:
        world.undo.end()
    return progress


def settle(world: World, progress: Progress, hooks: Sequence[Hook]) -> Iterator[Progress]:
    """What is due after a step; yields the progress after each hook, and at the end.

    A hook that has run after this step is left out: a rank may die in the midst of them.
    """
    for hook in hooks:
        if progress.done.get(hook.name) != progress.step and hook.due(progress):
            progress = hook.run(world, progress).ran(hook.name)
            yield progress
    yield replace(progress, settled=True)
