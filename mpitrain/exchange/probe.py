"""Time the kinds of exchange on this job's links and devices, for about a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.exchange import Exchange, needs_master
from mpitrain.exchange.move import Move
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

SHORT, LONG_MAX = 1 << 16, 1 << 21
"""Values of the short bucket (256 KiB), and at most of the long one (8 MiB, as in a network)."""
LONG_SECONDS = 0.6
"""For the turns of the long bucket, all kinds together."""
SHORT_TURNS, LONG_TURNS = 2, 3
IN_TURN_SECONDS = 0.9
"""After which `in_turn` ends, if it has made TURNS_MIN turns."""
TURNS_MIN, TURNS_MAX = 5, 41
"""Turns of `in_turn`, unless one way is clearly the fastest before."""
CLEAR_AFTER_TURNS, CLEAR_RATIO = 2, 1.5
"""After so many turns, ways that take more than so many times the fastest's time are left out."""
FASTEST_ROW_SECONDS, SLOWEST_ROW_SECONDS, ROW_CALLS_MAX = 2e-2, 5e-2, 64
"""How long the fastest way's calls in a row should take, how long the slowest's may take, and how
many calls there are at most."""


def measure(
    wire: Wire, device: Device, kinds: Sequence[str], update: str
) -> dict[int, dict[str, float]]:
    """Seconds that each kind takes to exchange a bucket, by the bucket's number of values.

    There are a short and a long bucket; on slow links only the short one. Seconds are the least of
    a few turns, of the slowest rank, and the same on every rank. Collective.
    """
    if not kinds:
        return {}
    short = _best_seconds(wire, device, kinds, update, SHORT, SHORT_TURNS)
    affordable = LONG_SECONDS / (LONG_TURNS + 1) / max(1e-6, sum(short.values()))
    size = int(SHORT * affordable) // 512 * 512
    if size <= SHORT:
        return {SHORT: short}
    size = min(size, LONG_MAX)
    return {SHORT: short, size: _best_seconds(wire, device, kinds, update, size, LONG_TURNS)}


def _best_seconds(
    wire: Wire, device: Device, kinds: Sequence[str], update: str, size: int, turns: int
) -> dict[str, float]:
    """By kind: the least seconds of a few turns, of the slowest rank."""
    with device.scope(), device.beside().scope():
        probes = {kind: _Probe(wire, device, kind, update, size) for kind in kinds}
        for probe in probes.values():  # compiles, and touches all memory
            probe.turn()
        best = dict.fromkeys(kinds, np.inf)
        for _ in range(turns):
            for kind, probe in probes.items():
                wire.agree.barrier()
                best[kind] = min(best[kind], probe.turn())
        for probe in probes.values():
            probe.close()
    return _slowest(wire, kinds, list(best.values()))


def in_turn(wire: Wire, ways: Mapping[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of some collective calls in each of a few turns, whose order is random.

    They are the slowest rank's, and the same on every rank. Ways that are clearly slower than the
    fastest are left out of the result, except that two always remain. Short ways are called several
    times in a row, all of them equally often. Collective.
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
    while turns < TURNS_MIN or (spent < IN_TURN_SECONDS and turns < TURNS_MAX):
        calls = _calls_in_a_row(typical.values())
        turn = [0.0] * len(names)
        for number in order.permutation(len(names)).tolist():
            turn[number] = _seconds(wire, ways[names[number]], calls)
        for name, seconds in _slowest(wire, names, turn).items():
            found[name].append(seconds)
            spent += (calls + calls // 2) * seconds
        turns += 1
        if turns < CLEAR_AFTER_TURNS:
            continue
        typical = {name: median(found[name]) for name in names}
        names = sorted(names, key=lambda name: typical[name])
        far = CLEAR_RATIO * typical[names[0]]
        if typical[names[1]] > far:
            names = names[:2]
            break
        names = [name for name in names if typical[name] <= far]
        typical = {name: typical[name] for name in names}
    return {name: found[name] for name in names}


def _calls_in_a_row(typical: Iterable[float]) -> int:
    """How many calls in a row, given the seconds of one call of each way."""
    seconds = list(typical)
    return max(
        1,
        min(
            ROW_CALLS_MAX,
            int(FASTEST_ROW_SECONDS / min(seconds)),
            int(SLOWEST_ROW_SECONDS / max(seconds)),
        ),
    )


def _seconds(wire: Wire, way: Callable[[], None], times: int) -> float:
    """Seconds of one of `times` calls in a row, after half as many that are not measured.

    Those bring links and caches into the state in which this way leaves them: an idle
    link takes its first bytes at once, and the way before left other data in the cache.
    """
    for _ in range(times // 2):
        way()
    wire.agree.line_up()
    begin = time.perf_counter()
    for _ in range(times):
        way()
    return (time.perf_counter() - begin) / times


def _slowest(wire: Wire, names: Sequence[str], seconds: Sequence[float]) -> dict[str, float]:
    """By name: the seconds of the slowest rank."""
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
            _NoUpdates(),
            master,
            streaming=False,
        )

    def close(self) -> None:
        """Before the next one asks for more shared memory."""
        self._exchange.close()

    def turn(self) -> float:
        """Seconds of one exchange."""
        self._gradient.copy_from(self._noise)
        self._gradient.device.finish()
        begin = time.perf_counter()
        self._exchange.send(self._bucket, 1)
        self._exchange.finish()
        return time.perf_counter() - begin


class _NoUpdates:
    """An Updater that leaves the weights as they are."""

    def set_out(self, gradient: Array) -> None: ...

    def update(self, move: Move) -> None: ...

    def alive(self) -> None: ...
