"""What a codec does, and the vectors that it works on: for NumPy and for devices alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.cut import parts

BLOCK = 512
"""Values that are coded together."""

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bounds = NDArray[np.float64]
"""By block."""


class Vector(Protocol):
    """A flat vector in host or device memory: runtime's Array, or Plain."""

    @property
    def size(self) -> int: ...

    def part(self: V, start: int, stop: int) -> V: ...

    def host(self, write: bool = False, read: bool = True) -> Any: ...

    def release(self) -> None: ...


V = TypeVar("V", bound=Vector)


class Plain:
    """A NumPy vector with the methods of a device's array."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self.size = values.size

    def part(self, start: int, stop: int) -> Plain:
        """Elements [start, stop), as a view."""
        return Plain(self.values[start:stop])

    @contextmanager
    def host(self, write: bool = False, read: bool = True) -> Iterator[NDArray[Any]]:
        """The vector itself."""
        yield self.values

    def release(self) -> None:
        """Nothing to free."""


class Codec(Protocol[V]):
    """Turns float vectors into bytes and back.

    A vector of n values becomes blocks(n) records of `record` bytes, in order.
    """

    name: str
    number: int
    """The number that stands for this codec in a message's header."""
    record: int

    def bytes(self, size: int) -> V:
        """A new vector of so many bytes."""

    def floats(self, size: int) -> V:
        """A new vector of zeros."""

    def encode(self, codes: V, x: V, residual: V | None = None, minus: V | None = None) -> None:
        """Write blocks(x.size) records into codes.

        codes = Q(x + residual), residual = x + residual - decoded; or codes = Q(x - minus).
        """

    def decode_add(self, acc: V, codes: V, first: bool, offset: int = 0) -> None:
        """acc = decoded if `first`, else acc + decoded, rounded to float32.

        The records start at byte `offset` of codes.
        """

    def scale(self, x: V, factor: float) -> None:
        """x = x * factor, in float32."""

    def bounds(self, records: Bytes) -> Bounds:
        """The largest possible rounding error of each block of records in host memory.

        Infinity for a block that is not finite.
        """

    def zeros(self, records: Bytes) -> NDArray[np.bool_]:
        """Whether the code of each value of records in host memory is that of zero.

        The result covers whole blocks.
        """


def blocks(size: int) -> int:
    """Blocks in a vector of so many values; the last one may be short."""
    return parts(size, BLOCK)
