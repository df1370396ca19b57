"""Whole numbers of parts: the divisions that decide who takes how much."""

from __future__ import annotations


def parts(whole: int, each: int) -> int:
    """How many parts of `each` it takes to cover `whole`."""
    return -(-whole // each)


def round_up(value: int, multiple: int) -> int:
    """The first multiple from `value` on."""
    return parts(value, multiple) * multiple


def even(whole: int, most: int) -> int:
    """The size of parts of at most `most` that divide `whole` as evenly as can be."""
    return parts(whole, parts(whole, most))
