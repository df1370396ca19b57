"""Sum of two branches."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.layers.flat import copy, split
from mpitrain.layers.layer import Layer, Pass, Shape, size
from mpitrain.report import UserError
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


class Add(Layer):
    """y = x[0] + x[1].  Both dx are dy: the first may be its very memory, the second is a copy."""

    inputs = 2
    in_place = True

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if first != second:
            raise UserError(f"adds two values of one shape, got {first} and {second}")
        return first

    def build(self, device: Device, *shapes: Shape) -> None:
        self.device = device
        self.kernels = device.program("add")
        self.size = size(shapes[0])

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        n = run.images * self.size
        items, chunk = split(self.device, n)
        self.kernels.add(items, y, x[0], x[1], n, chunk, group=self.device.group)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        for each in dx:
            if each is not None:
                copy(each, dy, run.images * self.size)


def add_into(device: Device, y: Array, x: Array, n: int) -> None:
    """y = y + x for the first n values: how a value that is used twice gathers its gradient."""
    items, chunk = split(device, n)
    device.program("add").add(items, y, y, x, n, chunk, group=device.group)
