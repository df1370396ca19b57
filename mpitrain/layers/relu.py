"""Rectified linear unit."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.engine import Engine
from mpitrain.layers.flat import split
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.runtime.array import Array


class Relu(Layer):
    """y = max(x, 0).  dx = dy where y > 0, so only y is kept for the way back. A NaN in x stays one
    in y."""

    keeps = ("y",)
    in_place = True

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return shape

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.numbers = device.format.numbers(shapes[0])
        self.kernels = device.program("relu", **self.numbers.definitions)
        self.size = device.format.stored_size(shapes[0])

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        n = run.images * self.size
        items, chunk = split(self.device, n, self.numbers)
        self.kernels.relu_forward(items, y, x[0], n, chunk, group=self.device.group)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is None:
            return
        n = run.images * self.size
        items, chunk = split(self.device, n, self.numbers)
        self.kernels.relu_backward(items, dx[0], dy, y, n, chunk, group=self.device.group)
