"""An image's values in one row, for dense layers."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.layers.flat import copy
from mpitrain.layers.layer import Layer, Pass, Shape, size
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


class Flatten(Layer):
    """y = x under the shape (C * H * W,). Nothing to compute: a copy, and none where y is x's memory (dx is dy's)."""

    in_place = True

    def output_shape(self, *shapes: Shape) -> Shape:
        return (size(shapes[0]),)

    def build(self, device: Device, *shapes: Shape) -> None:
        self.size = size(shapes[0])

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        copy(y, x[0], run.images * self.size)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is not None:
            copy(dx[0], dy, run.images * self.size)
