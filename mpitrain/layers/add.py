"""Sum of two branches."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.job.errors import UserError
from mpitrain.layers.flat import copy, split
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.runtime.array import Array


class Add(Layer):
    """y = x[0] + x[1], or the ReLU of it.  Both dx are dy (where y > 0): the first may be its very
    memory, the second is a copy."""

    inputs = 2
    in_place = True
    keeps_rectified = ("y",)

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if first != second:
            raise UserError(f"adds two values of one shape, got {first} and {second}")
        return first

    def can_rectify(self, fmt: Format, *shapes: Shape) -> bool:
        return True

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.numbers = device.format.numbers(shapes[0])
        self.kernels = device.program("add", **self.numbers.definitions)
        self.size = device.format.stored_size(shapes[0])

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        n = run.images * self.size
        items, chunk = split(self.device, n, self.numbers)
        self.kernels.add(items, y, x[0], x[1], n, chunk, int(self.rectify), group=self.device.group)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        n = run.images * self.size
        if self.rectify:
            items, chunk = split(self.device, n, self.numbers)
            first, second = dx[0] or dy, dx[1] or dx[0] or dy
            self.kernels.add_rectified_backward(
                items, first, second, dy, y, n, chunk, group=self.device.group
            )
            return
        for each in dx:
            if each is not None:
                copy(each, dy, n)


def add_into(device: Engine, y: Array, x: Array, shape: Shape, images: int) -> None:
    """y = y + x for values of this shape: how one that is used twice gathers its gradient."""
    numbers, n = device.format.numbers(shape), images * device.format.stored_size(shape)
    items, chunk = split(device, n, numbers)
    device.program("add", **numbers.definitions).add(
        items, y, y, x, n, chunk, 0, group=device.group
    )
