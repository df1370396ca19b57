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
LEAST_TURNS, MOST_TURNS = 3, 15
"""Of `in_turn`, within the budget."""


def measure(wire: Wire, device: Device, kinds: Sequence[str], update: str) -> dict[str, float]:
    """Seconds of one bucket's exchange by each kind: the best of a few turns, the slowest rank's, the same on every rank. Collective."""
    if not kinds:
        return {}
    short = _round(wire, device, kinds, update, FEW, 1)
    size = int(FEW * BUDGET / (TURNS + 1) / max(1e-6, sum(short.values()))) // 512 * 512
    if size <= FEW:
        return short
    return _round(wire, device, kinds, update, min(size, MANY), TURNS)


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
    slowest = wire.table(np.array(list(best.values()))).max(axis=0)
    return dict(zip(kinds, slowest.tolist(), strict=True))


def in_turn(wire: Wire, ways: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of each of some collective calls, taken in turn: the median, the slowest rank's, the same on every rank. Collective."""
    if len(ways) < 2:
        return dict.fromkeys(ways, 0.0)
    for way in ways.values():  # compiles, and touches all memory
        way()
    found: list[list[float]] = []
    spent = 0.0
    while len(found) < LEAST_TURNS or (spent < BUDGET and len(found) < MOST_TURNS):
        row = []
        for way in ways.values():
            wire.barrier()
            begin = time.perf_counter()
            way()
            row.append(time.perf_counter() - begin)
        found.append(wire.table(np.array(row)).max(axis=0).tolist())
        spent += sum(found[-1])
    return dict(zip(ways, np.median(found, axis=0).tolist(), strict=True))


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
