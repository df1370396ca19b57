"""Cut an array into pieces that one MPI call can carry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

ELEMENTS_PER_CALL = 1 << 28
"""MPI's counts are C ints, and some libraries convert them to bytes in an int."""


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """A C-ordered array as a vector of the same memory. Raises ValueError for any other array."""
    if not array.flags.c_contiguous:
        raise ValueError(f"an array to send must be C-ordered, got strides {array.strides}")
    return array.reshape(-1)


def pieces(vector: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """A vector's memory in pieces, in order."""
    for start in range(0, vector.size, ELEMENTS_PER_CALL):
        yield vector[start : start + ELEMENTS_PER_CALL]
