"""What a split dense layer sends, without what it computes: to time it, or to play it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpitrain.layers.dense.split import SplitDense
from mpitrain.layers.layer import Shape


class TravellingRows:
    """Rows of zeros that travel as those of a SplitDense do. Both calls are collective.

    everyone: images of each rank, as in a Pass.
    """

    def __init__(self, layer: SplitDense, *shapes: Shape) -> None:
        self._x, self._y = layer.sides(*shapes)
        self._rank = layer.peers.rank

    def forward(self, everyone: Sequence[int]) -> None:
        """x to where it is multiplied, y back."""
        x_rows, y_rows, x, y = self._arrays(everyone)
        self._x.spread(x_rows, x, everyone)
        self._y.collect(y, y_rows, everyone)

    def backward(self, everyone: Sequence[int]) -> None:
        """dy to where it is multiplied, dx back."""
        x_rows, y_rows, x, y = self._arrays(everyone)
        self._y.spread(y_rows, y, everyone)
        self._x.collect(x, x_rows, everyone)

    def _arrays(
        self, everyone: Sequence[int]
    ) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        total, own = sum(everyone), everyone[self._rank]
        shapes = (
            (total, self._x.here),
            (total, self._y.here),
            (own, self._x.width),
            (own, self._y.width),
        )
        return [np.zeros(shape, np.float32) for shape in shapes]
