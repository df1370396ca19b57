"""A range of the flat parameter vector that travels as one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Matrix:
    """A tensor of a bucket as a matrix: the bucket's values [start, start + rows * columns), row
    after row."""

    start: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Bucket:
    """Values [start, stop) of the vector, both multiples of a codec block (512), in the order in
    which gradients are complete."""

    number: int
    start: int
    stop: int
    coded: bool
    """Whether it may be quantised; biases and scales are not."""
    matrices: tuple[Matrix, ...] = ()
    """Its tensors, where buckets are cut between tensors alone."""
