"""Choose the kind of exchange where the user has not: by measured seconds, or by a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Protocol

from mpitrain.exchange.registry import is_lossy

LOSSY_TIME_MAX = 0.8
"""A lossy kind must take less than this share of the fastest exact kind's time, to be worth its
rounding."""
OTHER_TIME_MAX = 0.985
"""For allreduce: any way must take less than this share of a simpler way's time."""
WINDOW_TIME_MAX = 2.0
"""Shared memory is chosen up to so many times the time of MPI's messages. Times on a busy host
differ from run to run. The choice should not, because the two add in different orders."""


class Ranks(Protocol):
    """What this module needs to know of the ranks; mpi's Ranks has it."""

    size: int
    local_size: int
    one_host: bool


def candidates(kind: str, ranks: Ranks) -> tuple[str, ...]:
    """The kinds to measure before `choose`; none if there is nothing to choose."""
    if kind != "auto" or ranks.size == 1:
        return ()
    return ("float32", "window") if ranks.one_host else ("float32", "dynamic8")


def choose(kind: str, ranks: Ranks, seconds: Mapping[str, float] | None = None) -> tuple[str, str]:
    """The kind of exchange for these ranks, and the reason in one line; the same on every rank.

    seconds: of each candidate for the same vector, the same on every rank. Without them "auto" is
    decided by where the ranks are.
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
    best = min(exact, key=lambda name: exact[name] / (WINDOW_TIME_MAX if name == "window" else 1.0))
    for name in seconds:
        if is_lossy(name) and seconds[name] < LOSSY_TIME_MAX * exact[best]:
            best = name
    times = ", ".join(f"{name} {_milliseconds(time)}" for name, time in seconds.items())
    return best, f"measured: {times}"


def coded_from(kind: str, measured: Mapping[int, Mapping[str, float]]) -> int:
    """From how many values on a bucket is worth coding by this kind; 0: every bucket is.

    measured: by number of values of a bucket, the seconds of each kind. The seconds that coding
    saves, less those that its rounding must be worth, are taken to be linear in the length; two
    lengths say where they are zero.
    """
    if not is_lossy(kind) or len(measured) < 2:
        return 0
    (short, before), (long, after) = sorted(measured.items())
    little, much = (
        LOSSY_TIME_MAX * seconds["float32"] - seconds[kind] for seconds in (before, after)
    )
    return int(short - little * (long - short) / (much - little)) if little < 0 and much > 0 else 0


def quickest(turns: Mapping[str, Sequence[float]]) -> str:
    """The way that takes the least time, by the seconds of each way in each turn.

    MPI's own way ("library") is kept unless another is faster by a little; a lossy kind must be
    faster by more. Ways are compared by the median over turns of their ratio within a turn, because
    what disturbs one way in a turn disturbs the others too.
    """
    if "library" not in turns:
        return min(
            turns, key=lambda name: median(turns[name]) / (OTHER_TIME_MAX if is_lossy(name) else 1)
        )
    shares = {"library": OTHER_TIME_MAX}
    for name, times in turns.items():
        ratios = [own / mpis for own, mpis in zip(times, turns["library"], strict=True) if mpis]
        if name != "library" and ratios:
            shares[name] = median(ratios) / (OTHER_TIME_MAX if is_lossy(name) else 1.0)
    return min(shares, key=lambda name: shares[name])


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
