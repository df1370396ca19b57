"""One training, from the first word between ranks to the hashes of their weights:
`mpitrain.train(run)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mpitrain import __version__
from mpitrain.job.config import Run, shared
from mpitrain.job.errors import DONE, STOPPED
from mpitrain.job.run_folder import Hold
from mpitrain.job.stdout import unfailing
from mpitrain.mpi.asked import compare
from mpitrain.mpi.connect import abort, connect
from mpitrain.mpi.wire import Wire
from mpitrain.training import loop
from mpitrain.training.faults import Fault
from mpitrain.training.hooks.registry import make_hooks
from mpitrain.training.hooks.words import say_header
from mpitrain.training.join import introduce, join
from mpitrain.training.traced import TracedWatchdog, traced
from mpitrain.watch.signals import Stop
from mpitrain.watch.watchdog import Watchdog

_watch: Watchdog | None = None


def watching() -> Watchdog | None:
    """The watchdog of the training in this process: it knows what is going on, or went on when it
    failed."""
    return _watch


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    exit_code: int
    step: int
    loss: float
    """Mean over the last step's batch; NaN if there was no step."""
    top1: float | None
    """On the test images, when they were last scored; None if they were not."""
    weights_sha256: tuple[str, ...]
    """One hash a rank, in rank order, of all parameters as little-endian float32 in network
    order."""
    folder: Path


def train(run: Run) -> Result:
    """Train a network on all ranks of this job. Raises UserError, on every rank alike, for a run
    that cannot be."""
    global _watch
    wire = connect()
    compare(wire.agree, shared(run) | {"version": __version__})
    introduce(wire, not wire.ranks.one_host)
    fault = wire.agree.together(lambda: Fault(run.inject, wire.ranks.rank))
    wire.ranks.delay.seconds = fault.delay
    kind: Callable[..., Watchdog] = Watchdog
    if run.trace:
        wire, trace = traced(wire)
        kind = partial(TracedWatchdog, trace)
    _watch = kind(wire.ranks.rank, run.stall_seconds, abort)
    stop, hold = Stop(speaks=wire.ranks.rank == 0), Hold()
    try:
        with unfailing():
            result = _train(run, wire, _watch, fault, stop, hold)
    finally:
        _watch.stop()
        stop.leave()
        hold.leave()
    _watch = None
    return result


def _train(run: Run, wire: Wire, watch: Watchdog, fault: Fault, stop: Stop, hold: Hold) -> Result:
    world, said = join(run, wire, watch, fault, stop, hold)
    plan, local = world.plan, world.local
    try:
        say_header(world, said)
        local.display.begin(plan.begun, plan.steps)
        _, progress = loop.run(world, plan.first(), make_hooks(plan))
    finally:
        world.exchange.close()
        local.display.close()
        local.log.close()
    code = DONE if plan.is_done(progress) else STOPPED
    top1 = progress.scores.top1 if progress.scores else None
    return Result(code, progress.step, progress.loss, top1, progress.hashes, plan.folder)
