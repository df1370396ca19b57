"""Cut whole numbers into parts: rounding up, nearly even parts, and one shard a rank."""

from __future__ import annotations


def parts(whole: int, each: int) -> int:
    """How many parts of size `each` cover `whole`: the quotient, rounded up."""
    return -(-whole // each)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is at least `value`."""
    return parts(value, multiple) * multiple


def even(whole: int, most: int) -> int:
    """The size of parts that divide `whole` as evenly as possible; each is at most `most`."""
    return parts(whole, parts(whole, most))


def shards(count: int, size: int) -> list[tuple[int, int]]:
    """Cut 0 .. count - 1 into one range [start, stop) for each of `size` ranks, in rank order.

    Their lengths differ by at most 1. Every rank computes the same cut without being told.
    """
    return [(rank * count // size, (rank + 1) * count // size) for rank in range(size)]


def aligned_shards(count: int, size: int, multiple: int) -> list[tuple[int, int]]:
    """`shards` that begin at multiples of a number, or at the end."""
    cuts = shards(parts(count, multiple), size)
    return [(min(start * multiple, count), min(stop * multiple, count)) for start, stop in cuts]


def shard_lengths(count: int, size: int) -> list[int]:
    """How long each rank's shard of `count` values is, in rank order."""
    return [stop - start for start, stop in shards(count, size)]
