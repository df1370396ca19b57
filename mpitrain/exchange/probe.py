"""Time the kinds of exchange on this job's links and devices before it begins, for about a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.exchange import Exchange, needs_master
from mpitrain.exchange.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

FEW, MANY = 1 << 16, 1 << 21
"""Values of the first vector (256 KiB), and of the longest (a bucket)."""
BUDGET = 0.6
"""Seconds for the second, longer round of all kinds together."""
TURNS = 3
LEAST_TURNS, MOST_TURNS = 5, 25
"""Of `in_turn`, within the budget."""
ROW, LONGEST_ROW, MOST_IN_A_ROW = 1e-2, 5e-2, 64
"""Seconds that the quickest's calls in a row should take, and the slowest's may; and how many there are at most."""


def measure(wire: Wire, device: Device, kinds: Sequence[str], update: str) -> dict[int, dict[str, float]]:
    """Seconds of one bucket's exchange by each kind, for a short and a long bucket of so many values (slow links: the short one only):
    the best of a few turns, the slowest rank's, the same on every rank. Collective."""
    if not kinds:
        return {}
    short = _round(wire, device, kinds, update, FEW, 2)
    size = int(FEW * BUDGET / (TURNS + 1) / max(1e-6, sum(short.values()))) // 512 * 512
    if size <= FEW:
        return {FEW: short}
    size = min(size, MANY)
    return {FEW: short, size: _round(wire, device, kinds, update, size, TURNS)}


def _round(
    wire: Wire, device: Device, kinds: Sequence[str], update: str, size: int, turns: int
) -> dict[str, float]:
    with device.scope(), device.beside().scope():
        probes = {kind: _Probe(wire, device, kind, update, size) for kind in kinds}
        for probe in probes.values():  # compiles, and touches all memory
            probe.turn()
        best = dict.fromkeys(kinds, np.inf)
        for _ in range(turns):
            for kind, probe in probes.items():
                wire.barrier()
                best[kind] = min(best[kind], probe.turn())
    return _slowest(wire, kinds, list(best.values()))


def in_turn(wire: Wire, ways: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of each of some collective calls, in turns of random order: the median, the slowest rank's, the same on every rank.

    Short ones are called several times in a row, all as often, as links that have rested are quicker than they stay. Collective.
    """
    names = list(ways)
    if len(names) < 2:
        return dict.fromkeys(names, 0.0)
    for way in ways.values():  # compiles, and touches all memory
        way()
    once = _slowest(wire, names, [_seconds(wire, way, 1) for way in ways.values()]).values()
    row = max(1, min(MOST_IN_A_ROW, int(ROW / min(once)), int(LONGEST_ROW / max(once))))
    order = np.random.default_rng(0)  # the same on every rank
    found: list[list[float]] = []
    spent = 0.0
    while len(found) < LEAST_TURNS or (spent < BUDGET and len(found) < MOST_TURNS):
        turn = [0.0] * len(names)
        for number in order.permutation(len(names)).tolist():
            turn[number] = _seconds(wire, ways[names[number]], row)
        slowest = _slowest(wire, names, turn)
        found.append(list(slowest.values()))
        spent += row * sum(slowest.values())
    return dict(zip(names, np.median(found, axis=0).tolist(), strict=True))


def _seconds(wire: Wire, way: Callable[[], None], times: int) -> float:
    """Of one call, of so many in a row."""
    wire.line_up()
    begin = time.perf_counter()
    for _ in range(times):
        way()
    return (time.perf_counter() - begin) / times


def _slowest(wire: Wire, names: Sequence[str], seconds: Sequence[float]) -> dict[str, float]:
    """The slowest rank's seconds of each name."""
    table = wire.table(np.array(seconds)).max(axis=0)
    return dict(zip(names, table.tolist(), strict=True))


class _Probe:
    """An exchange of one bucket of noise."""

    def __init__(self, wire: Wire, device: Device, kind: str, update: str, size: int) -> None:
        self._bucket = Bucket(0, 0, size, coded=True)
        noise = np.random.default_rng(wire.rank).standard_normal(size).astype(np.float32)
        self._noise = device.upload(noise)
        self._gradient = device.zeros((size,))
        weights = device.zeros((size,))
        master = device.zeros((size,)) if needs_master(wire.rank, wire.size, kind, update) else None
        self._exchange = Exchange(
            wire,
            device,
            weights,
            self._gradient,
            [self._bucket],
            kind,
            update,
            _leave,
            master,
            streaming=False,
        )

    def turn(self) -> float:
        """Seconds of one exchange."""
        self._gradient.copy_from(self._noise)
        self._gradient.device.finish()
        begin = time.perf_counter()
        self._exchange.send(self._bucket, 1)
        self._exchange.finish()
        return time.perf_counter() - begin


def _leave(start: int, stop: int, mean: Array) -> None:
    """Weights stay as they are."""
