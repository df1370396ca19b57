"""One training step. Each line of `step` is a hop, and each hop is one module."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mpitrain.data.feed import Feed
from mpitrain.exchange.exchange import Exchange, ExchangeReport
from mpitrain.layers.layer import Pass
from mpitrain.network.graph import Graph
from mpitrain.training.faults import Fault
from mpitrain.watch.watchdog import Watchdog


@dataclass(frozen=True)
class Work:
    """What a step works with on one rank."""

    feed: Feed
    graph: Graph
    exchange: Exchange
    watch: Watchdog
    fault: Fault
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What this rank saw of a step."""

    loss: float
    """Sum over this rank's images."""
    seconds: dict[str, float]
    """total, compute, exchange (not hidden by compute), wait (for images), and host: what this thread did of its own
    while it waited neither for the device nor for images nor for other ranks."""
    exchange: ExchangeReport


def step(work: Work, t: int, meanwhile: Callable[[], None]) -> Outcome:
    """One update, from sample numbers to new weights on every rank.

    meanwhile: called once, when the device has enough to do: what may be done beside it.
    """
    begin = time.perf_counter()
    work.watch.at("scatter", t)
    work.fault("scatter", t)
    images, labels = work.feed.part(t)  # sent while the last step ran
    waited = time.perf_counter() - begin
    loss = blocked = 0.0
    for first in range(0, max(1, len(images)), work.graph.capacity):
        part = slice(first, first + work.graph.capacity)
        last = part.stop >= len(images)
        run = Pass(
            len(images[part]), True, first > 0, seed=(work.seed << 32) + t, first=work.feed.mine.start + first
        )
        work.watch.at("forward", t)
        work.fault("forward", t)
        work.graph.load(images[part], labels[part])
        work.graph.forward(run)
        work.fault.drag(run.images)
        work.watch.at("backward", t)
        for bucket in work.graph.backward(run, last):  # last layer first
            work.exchange.send(bucket, work.batch_size)  # codes, wire, mean, update, deltas: meanwhile
        if first == 0:
            meanwhile()
        queued = time.perf_counter()
        loss += float(work.graph.losses(run.images).sum(dtype="float64"))
        blocked += time.perf_counter() - queued
    work.watch.at("exchange", t)
    queued = time.perf_counter()
    report = work.exchange.finish()  # every rank now holds the new weights
    blocked += time.perf_counter() - queued
    total, exchanged = time.perf_counter() - begin, report.seconds - report.hidden
    seconds = {
        "total": total,
        "compute": total - exchanged - waited,
        "exchange": exchanged,
        "wait": waited,
        "host": total - blocked - waited,
    }
    return Outcome(loss, seconds, report)
