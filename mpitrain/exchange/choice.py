"""Choose how gradients travel when nobody has said so, with the reason in one line."""

from __future__ import annotations

from typing import Protocol

KINDS = ("float32", "float16", "dynamic8")


class Ranks(Protocol):
    """Who takes part; Wire knows."""

    size: int
    local_size: int
    one_host: bool


def choose(kind: str, ranks: Ranks) -> tuple[str, str]:
    """The kind of exchange for these ranks, the same on all of them, and why. "auto" looks where the ranks are."""
    if kind != "auto":
        return kind, f"--exchange {kind}"
    if ranks.size == 1:
        return "float32", "one rank exchanges nothing"
    if ranks.one_host:
        return "float32", "all ranks share a host, whose memory is faster than a codec"
    return "dynamic8", "ranks on several hosts, whose links are slower than the codec"
