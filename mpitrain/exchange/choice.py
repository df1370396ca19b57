"""Choose how gradients travel when nobody has said so, with the reason in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Protocol

from mpitrain.exchange.registry import is_lossy

GAIN = 0.8
"""Share of the fastest exact kind's time that a lossy one must stay under, to be worth its
rounding."""
WORTH = 0.985
"""Share of a simpler way's time that another must stay under where a caller wants one vector's mean
as quickly as may be."""
DOUBT = 2.0
"""How much slower than MPI's messages shared memory must seem before it is not taken: times on a
busy host differ from run to run, and the choice should not, for the two add in different orders."""


class Ranks(Protocol):
    """Who takes part; mpi's Ranks knows."""

    size: int
    local_size: int
    one_host: bool


def candidates(kind: str, ranks: Ranks) -> tuple[str, ...]:
    """The kinds to measure before `choose`: none where there is nothing to choose."""
    if kind != "auto" or ranks.size == 1:
        return ()
    return ("float32", "window") if ranks.one_host else ("float32", "dynamic8")


def choose(kind: str, ranks: Ranks, seconds: Mapping[str, float] | None = None) -> tuple[str, str]:
    """The kind of exchange for these ranks, the same on all of them, and why. "auto" looks at what
    was measured, or where the ranks are.

    seconds: of each candidate for one and the same vector, the same on every rank; without it there
    is only a rule.
    """
    if kind != "auto":
        return kind, f"--exchange {kind}"
    if ranks.size == 1:
        return "float32", "one rank exchanges nothing"
    if not seconds:
        if ranks.one_host:
            return "float32", "all ranks share a host, whose memory is faster than a codec"
        return "dynamic8", "ranks on several hosts, whose links are slower than the codec"
    exact = {name: time for name, time in seconds.items() if not is_lossy(name)}
    best = min(exact, key=lambda name: exact[name] / (DOUBT if name == "window" else 1.0))
    for name in seconds:
        if is_lossy(name) and seconds[name] < GAIN * exact[best]:
            best = name
    times = ", ".join(f"{name} {_milliseconds(time)}" for name, time in seconds.items())
    return best, f"measured: {times}"


def coded_from(kind: str, measured: Mapping[int, Mapping[str, float]]) -> int:
    """Values from which on a bucket is worth coding by a kind, as far as two lengths tell; 0: all
    are.

    measured: seconds of each kind for buckets of so many values. What coding saves, beyond what its
    rounding must be worth, is taken to be a line over length.
    """
    if not is_lossy(kind) or len(measured) < 2:
        return 0
    (short, before), (long, after) = sorted(measured.items())
    little, much = (GAIN * seconds["float32"] - seconds[kind] for seconds in (before, after))
    return int(short - little * (long - short) / (much - little)) if little < 0 and much > 0 else 0


def quickest(turns: Mapping[str, Sequence[float]]) -> str:
    """Of what was measured for vectors of one length in turns, seconds of each way in each, what
    takes the least time.

    MPI's own ("library") unless it is beaten by a little, and by a lossy kind by a little more,
    turn by turn in the median: what disturbs a turn disturbs all that is measured in it.
    """
    if "library" not in turns:
        return min(turns, key=lambda name: median(turns[name]) / (WORTH if is_lossy(name) else 1))
    shares = {"library": WORTH}
    for name, times in turns.items():
        beside = [mine / its for mine, its in zip(times, turns["library"], strict=True) if its]
        if name != "library" and beside:
            shares[name] = median(beside) / (WORTH if is_lossy(name) else 1.0)
    return min(shares, key=lambda name: shares[name])


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
