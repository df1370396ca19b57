"""Time the kinds of exchange on this job's links and devices before it begins, for about a second
at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.exchange import Exchange, needs_master
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

FEW, MANY = 1 << 16, 1 << 21
"""Values of the first vector (256 KiB), and of the longest (a bucket)."""
BUDGET = 0.6
"""Seconds for the second, longer round of all kinds together."""
TURNS = 3
IN_TURN = 0.9
"""Seconds for `in_turn`, but for its least turns."""
LEAST_TURNS, MOST_TURNS = 5, 41
"""Of `in_turn`, where nothing is clear before."""
CLEAR, FAR = 2, 1.5
"""Turns after which whatever takes so many times the quickest's time is measured no more."""
ROW, LONGEST_ROW, MOST_IN_A_ROW = 2e-2, 5e-2, 64
"""Seconds that the quickest's calls in a row should take, and the slowest's may; and how many there
are at most."""


def measure(
    wire: Wire, device: Device, kinds: Sequence[str], update: str
) -> dict[int, dict[str, float]]:
    """Seconds of one bucket's exchange by each kind, for a short and a long bucket of so many
    values (slow links: the short one only): the best of a few turns, the slowest rank's, the same
    on every rank. Collective."""
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
                wire.agree.barrier()
                best[kind] = min(best[kind], probe.turn())
    return _slowest(wire, kinds, list(best.values()))


def in_turn(wire: Wire, ways: Mapping[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of some collective calls, in each of a few turns of random order: the slowest rank's,
    the same on every rank.

    Of those that may be the quickest, at least two: time is spent where it is not clear which.
    Short ones are called several times in a row, all as often. Collective.
    """
    names = list(ways)
    if len(names) < 2:
        return {name: [0.0] for name in names}
    for way in ways.values():  # compiles, and touches all memory
        way()
    typical = _slowest(wire, names, [_seconds(wire, way, 1) for way in ways.values()])
    order = np.random.default_rng(0)  # the same on every rank
    found: dict[str, list[float]] = {name: [] for name in names}
    spent, turns = 0.0, 0
    while turns < LEAST_TURNS or (spent < IN_TURN and turns < MOST_TURNS):
        row = _row(typical.values())
        turn = [0.0] * len(names)
        for number in order.permutation(len(names)).tolist():
            turn[number] = _seconds(wire, ways[names[number]], row)
        for name, seconds in _slowest(wire, names, turn).items():
            found[name].append(seconds)
            spent += (row + row // 2) * seconds
        turns += 1
        if turns < CLEAR:
            continue
        typical = {name: median(found[name]) for name in names}
        names = sorted(names, key=lambda name: typical[name])
        far = FAR * typical[names[0]]
        if typical[names[1]] > far:
            names = names[:2]
            break
        names = [name for name in names if typical[name] <= far]
        typical = {name: typical[name] for name in names}
    return {name: found[name] for name in names}


def _row(typical: Iterable[float]) -> int:
    """How often to call what takes so many seconds each."""
    seconds = list(typical)
    return max(1, min(MOST_IN_A_ROW, int(ROW / min(seconds)), int(LONGEST_ROW / max(seconds))))


def _seconds(wire: Wire, way: Callable[[], None], times: int) -> float:
    """Of one call, of so many in a row, after half as many: a link that has rested takes its first
    bytes at once, and what was measured before leaves links and caches otherwise than each way does
    itself."""
    for _ in range(times // 2):
        way()
    wire.agree.line_up()
    begin = time.perf_counter()
    for _ in range(times):
        way()
    return (time.perf_counter() - begin) / times


def _slowest(wire: Wire, names: Sequence[str], seconds: Sequence[float]) -> dict[str, float]:
    """The slowest rank's seconds of each name."""
    table = wire.agree.table(np.array(seconds)).max(axis=0)
    return dict(zip(names, table.tolist(), strict=True))


class _Probe:
    """An exchange of one bucket of noise."""

    def __init__(self, wire: Wire, device: Device, kind: str, update: str, size: int) -> None:
        self._bucket = Bucket(0, 0, size, coded=True)
        noise = np.random.default_rng(wire.ranks.rank).standard_normal(size).astype(np.float32)
        self._noise = device.upload(noise)
        self._gradient = device.zeros((size,))
        weights = device.zeros((size,))
        master = (
            device.zeros((size,))
            if needs_master(wire.ranks.rank, wire.ranks.size, kind, update)
            else None
        )
        self._exchange = Exchange(
            wire,
            device,
            weights,
            self._gradient,
            [self._bucket],
            kind,
            update,
            _Still(),
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


class _Still:
    """An Updater whose weights stay as they are."""

    def set_out(self, gradient: Array) -> None: ...

    def update(self, start: int, stop: int, mean: Array) -> None: ...

    def alive(self) -> None: ...
