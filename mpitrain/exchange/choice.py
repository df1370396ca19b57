"""Choose how gradients travel when nobody has said so, with the reason in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

KINDS = ("float32", "float16", "dynamic8", "window")
LOSSY = ("float16", "dynamic8", "star-dynamic8")
STARS = {"star-float32": "float32", "star-dynamic8": "dynamic8"}
"""The paper's way, for comparisons: everything through rank 0. And the code of each."""
GAIN = 0.8
"""Share of the fastest exact kind's time that a lossy one must stay under, to be worth its rounding."""
MARGIN = 0.9
"""Share of plain float32's time that another kind must stay under where each length is measured by itself: less may be noise."""
DOUBT = 2.0
"""How much slower than MPI's messages shared memory must seem before it is not taken: times on a busy host differ from run to run, and
the choice should not, for the two add in different orders."""


class Ranks(Protocol):
    """Who takes part; Wire knows."""

    size: int
    local_size: int
    one_host: bool


def candidates(kind: str, ranks: Ranks) -> tuple[str, ...]:
    """The kinds to measure before `choose`: none where there is nothing to choose."""
    if kind != "auto" or ranks.size == 1:
        return ()
    return ("float32", "window") if ranks.one_host else ("float32", "dynamic8")


def choose(kind: str, ranks: Ranks, seconds: Mapping[str, float] | None = None) -> tuple[str, str]:
    """The kind of exchange for these ranks, the same on all of them, and why. "auto" looks at what was measured, or where the ranks are.

    seconds: of each candidate for one and the same vector, the same on every rank; without it there is only a rule.
    """
    if kind != "auto":
        return kind, f"--exchange {kind}"
    if ranks.size == 1:
        return "float32", "one rank exchanges nothing"
    if not seconds:
        if ranks.one_host:
            return "float32", "all ranks share a host, whose memory is faster than a codec"
        return "dynamic8", "ranks on several hosts, whose links are slower than the codec"
    exact = {name: time for name, time in seconds.items() if name not in LOSSY}
    best = min(exact, key=lambda name: exact[name] / (DOUBT if name == "window" else 1.0))
    for name in seconds.keys() & set(LOSSY):
        if seconds[name] < GAIN * exact[best]:
            best = name
    times = ", ".join(f"{name} {_milliseconds(time)}" for name, time in seconds.items())
    return best, f"measured: {times}"


def quickest(seconds: Mapping[str, float]) -> str:
    """The kind for vectors of the length that was measured: float32 unless another is quicker by a margin, the larger one if lossy."""
    shares = {
        name: time / (seconds["float32"] * (GAIN if name in LOSSY else MARGIN))
        for name, time in seconds.items()
        if name != "float32"
    }
    best = min(shares, key=lambda name: shares[name], default="float32")
    return best if shares and shares[best] < 1 else "float32"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
