"""One training step. Each line of `step` is a hop, and each hop is one module."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpitrain.data.feed import Part
from mpitrain.exchange.exchange import ExchangeReport
from mpitrain.job.errors import RunError, agreed
from mpitrain.job.trace import Trace
from mpitrain.layers.layer import Pass
from mpitrain.training.pieces import Pieces

if TYPE_CHECKING:
    from mpitrain.training.world import World


@dataclass(frozen=True)
class StepReport:
    """A step that all ranks have done, as this rank knows it."""

    step: int
    """Steps that are done now."""
    loss: float
    """Mean over the batch, the same on every rank."""
    stop: bool
    """Whether a signal has asked any rank for the end."""
    error_bound: float
    """Largest error that coding can have made in a value of the mean gradient."""
    compute_seconds: tuple[float, ...]
    """Of each rank."""
    cpu_seconds: float
    """CPU time of all ranks' processes."""
    seconds: dict[str, float]
    """Of this rank: total, compute, exchange (not hidden by compute), wait (for images), host:
    CPU time of what the main thread did of its own: neither reading images, nor waiting for the
    device or for other ranks; and data: CPU time of its threads that read and decode."""
    bytes_sent: int
    """By this rank."""
    rate: float
    """Learning rate."""
    gradient_norm: float | None = None
    """Of the mean gradient before it was clipped, on ranks that have it."""


class HostTime:
    """CPU time of this thread since it was made. A thread that waits for a CPU's runtime computes
    for it meanwhile, so waiting is left out."""

    def __init__(self, trace: Trace | None) -> None:
        self._trace, self._begin = trace, time.thread_time()

    @contextmanager
    def pause(self, why: str) -> Iterator[None]:
        """What happens inside does not count; a trace has it by these words."""
        begin = time.thread_time()
        if self._trace:
            with self._trace.span(why):
                yield
        else:
            yield
        self._begin += time.thread_time() - begin

    def seconds(self) -> float:
        """So far."""
        return time.thread_time() - self._begin


def step(world: World, t: int) -> StepReport:
    """One update, from sample numbers to new weights on every rank, until all have agreed that it
    is done.

    Raises RunError on every rank for a loss or a gradient that is not finite.
    """
    plan, local, feed, graph = world.plan, world.local, world.feed, world.local.graph
    watch, fault = local.watch, local.fault
    sent, swapped = world.wire.bytes_sent, world.wire.activations.seconds
    begin, cpu, decoded = time.perf_counter(), time.process_time(), feed.seconds
    watch.at("scatter", t)
    fault("scatter", t)
    images, labels, mixed = part = feed.part(t)  # read and sent while the last step ran
    waited = time.perf_counter() - begin
    host = HostTime(local.trace)
    computes_here = plan.simulated or (world.wire.ranks.size > 1 and not world.exchange.streams)
    if computes_here:  # this thread would not come to it before the step is over
        with host.pause("read ahead"):
            _read_ahead(world, t)
    pieces = Pieces(world.exchange, graph.statistics) if plan.run.strict else None
    loss, owed, goes_on = 0.0, world.own, False
    # Where layers are split, all ranks make as many runs.
    longest = max(feed.counts) if graph.together else len(images)
    for first in range(0, max(1, longest), graph.capacity):
        place = slice(first, first + graph.capacity)
        last = place.stop >= longest
        run = _run(world, t, part, place)
        watch.at("forward", t)
        fault("forward", t)
        if not graph.has_begun(run, images[place], labels[place]):
            graph.load(images[place], labels[place], mixed[place] if mixed else None)
            graph.forward(run)
        fault.drag(run.images)
        watch.at("backward", t)
        for bucket in graph.backward(run, last):  # last layer first
            world.exchange.send(bucket, plan.batch_size)  # codes, mean, update, deltas: meanwhile
            if owed and graph.own_complete:
                owed.update(plan.batch_size)
                owed = None
        if pieces:
            pieces.end(last)
        losses = graph.losses_later(run.images)
        queued = time.perf_counter()
        if first == 0:
            if not computes_here:
                with host.pause("read ahead"):
                    _read_ahead(world, t)
            local.log.catch_up()
        following = None
        if last and not (owed or computes_here):
            with host.pause("read ahead"):
                following = _bring_ahead(world, t)
        aside = time.perf_counter() - queued
        goes_on = following is not None and _begin(world, t + 1, following)
        blocks = time.perf_counter()
        with host.pause("wait for the device"):
            loss += float(losses().sum(dtype="float64"))
        blocking = time.perf_counter() - blocks
        waited += max(0.0, aside - blocking)  # the device was done first: it has waited for images
    if owed:
        owed.update(plan.batch_size)
    watch.at("exchange", t)
    with host.pause("finish the exchange"):
        report = world.exchange.finish(goes_on)  # every rank now holds the new weights
    if pieces:
        pieces.finish(world.wire, plan.batch_size, plan.sub_batch)
    swapped = world.wire.activations.seconds - swapped
    total, exchanged = time.perf_counter() - begin, report.seconds - report.hidden + swapped
    seconds = {
        "total": total,
        "compute": total - exchanged - waited,
        "exchange": exchanged,
        "wait": waited,
        "host": host.seconds(),
        "data": feed.seconds - decoded,
    }
    watch.at("agree", t + 1)
    table = _agree(world, loss, report, seconds["compute"], time.process_time() - cpu)
    mean = float(table[:, 0].sum()) / plan.batch_size
    if not math.isfinite(mean):
        raise diverged(world, t + 1, f"the loss is {mean}")
    if table[:, 3].any():
        raise diverged(world, t + 1, "the gradient is not finite (NaN or infinite)")
    return StepReport(
        step=t + 1,
        loss=mean,
        stop=bool(table[:, 2].any()),
        error_bound=float(table[:, 1].max()),
        compute_seconds=tuple(table[:, 4].tolist()),
        cpu_seconds=float(table[:, 5].sum()),
        seconds=seconds,
        bytes_sent=world.wire.bytes_sent - sent,
        rate=plan.rate(t),
        gradient_norm=report.gradient_norm,
    )


def _run(world: World, t: int, part: Part, place: slice) -> Pass:
    """The run of these places of this rank's part of a step's batch."""
    plan, graph, counts = world.plan, world.local.graph, world.feed.counts
    return Pass(
        len(part.labels[place]),
        True,
        place.start > 0 and not plan.run.strict,
        seed=(plan.run.seed << 32) + t,
        first=world.feed.mine.start + place.start,
        everyone=tuple(len(range(each)[place]) for each in counts) if graph.together else (),
    )


def _read_ahead(world: World, t: int) -> None:
    """Set the next batch on its way, while this step is computed."""
    if t + 1 < world.plan.steps:
        world.feed.ahead(t + 1)


def _bring_ahead(world: World, t: int) -> Part | None:
    """The next batch, on its way to the device of a rank that is alone with it and copies to it;
    else None."""
    graph = world.local.graph
    copies = world.exchange.queues_all and not graph.device.shares_memory
    if not copies or t + 1 >= world.plan.steps:
        return None
    part = world.feed.look(t + 1)
    graph.bring(part.images)
    return part


def _begin(world: World, t: int, part: Part) -> bool:
    """Queue a step's forward pass, if all that it depends on is queued, which is one run. Returns
    whether it is."""
    local = world.local
    whole = len(part.labels) <= local.graph.capacity and not part.mixed
    begins = whole and local.graph.can_begin and not world.plan.run.strict and local.trace is None
    if begins:
        run = _run(world, t, part, slice(0, local.graph.capacity))
        local.graph.begin(run, part.images, part.labels)
    return begins


def _agree(
    world: World, loss: float, report: ExchangeReport, compute: float, cpu: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A row of each rank: sum of losses, error bound, stop, gradient not finite, compute and CPU
    seconds."""
    stop, spoilt = float(world.local.stop.asked), float(not report.finite)
    return world.wire.agree.table(np.array([loss, report.error_bound, stop, spoilt, compute, cpu]))


def diverged(world: World, t: int, what: str) -> RunError:
    """The error that every rank raises for values that are not finite."""
    lr = world.plan.run.lr
    return agreed(RunError(f"step {t}: {what}; a smaller --lr (now {lr:g}) or a --warmup may help"))
