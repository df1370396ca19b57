"""A range of the flat parameter vector that is exchanged in one go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Matrix:
    """A tensor of a bucket as a matrix: values [start, start + rows * columns), row by row."""

    start: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class Bucket:
    """Values [start, stop) of the vector; both are multiples of a codec's block (512)."""

    number: int
    """In the order in which gradients become complete."""
    start: int
    stop: int
    coded: bool
    """Whether it may be quantised; biases and scales are not."""
    matrices: tuple[Matrix, ...] = ()
    """Its tensors, if buckets are cut only between tensors; see `Strategy.whole_tensors`."""

    @property
    def size(self) -> int:
        """How many values it has."""
        return self.stop - self.start
