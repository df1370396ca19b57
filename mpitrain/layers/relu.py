"""Rectified linear unit, without an upper end or with one at 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from mpitrain.engine.engine import Engine
from mpitrain.layers.flat import split
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.runtime.array import Array


class Relu(Layer):
    """y = max(x, 0).  dx = dy where y > 0, so only y is kept for the way back. A NaN in x stays one
    in y."""

    keeps = ("y",)
    in_place = True
    most: ClassVar[float | None] = None
    """The largest y, if there is one."""

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return shape

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.numbers = device.format.numbers(shapes[0])
        self.kernels = device.program(
            "relu", **self.numbers.definitions, **ceiling_facts(self.most)
        )
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


class Relu6(Relu):
    """y = min(max(x, 0), 6).  dx = dy where 0 < y < 6, as PyTorch has it. Source: Krizhevsky,
    Convolutional deep belief networks on CIFAR-10, 2010."""

    most = 6.0


def ceiling_facts(most: float | None) -> Mapping[str, str]:
    """For kernels/ceiling.h."""
    return {} if most is None else {"CEILING": f"{most}f"}
