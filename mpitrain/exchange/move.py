"""What an exchange asks of the optimiser: a range of weights, and the gradient that moves it."""

from __future__ import annotations

from dataclasses import dataclass

from mpitrain.runtime.array import Array


@dataclass(frozen=True)
class Move:
    """The weights [start, stop) are to move by their mean gradient."""

    start: int
    stop: int
    mean: Array
    """The gradient, float32 (stop - start,); or the first of its terms."""
    terms: int = 1
    """The gradient is `factor` times the sum of so many vectors, added up in their order."""
    apart: int = 0
    """Values from the beginning of one of them to that of the next."""
    factor: float = 1.0
