"""A range of the flat parameter vector that travels as one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bucket:
    """Values [start, stop) of the vector, both multiples of a codec block (512), in the order in
    which gradients are complete."""

    number: int
    start: int
    stop: int
    coded: bool
    """Whether it may be quantised; biases and scales are not."""
