"""An image's values in one row, for dense layers."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import FLOAT32, Format
from mpitrain.layers.blocks import Planes
from mpitrain.layers.flat import copy
from mpitrain.layers.layer import Layer, Pass, Shape, size
from mpitrain.runtime.array import Array


class Flatten(Layer):
    """y = x under the shape (C * H * W,), in the order of C, H, W. A copy, and none where y is x's
    memory (dx is dy's)."""

    in_place = True

    def output_shape(self, *shapes: Shape) -> Shape:
        return (size(shapes[0]),)

    def shares_memory(self, fmt: Format, *shapes: Shape) -> bool:
        if len(shapes[0]) != 3 or fmt.block == 1:
            return True
        full = size(shapes[0][1:]) == 1 and shapes[0][0] % fmt.block_of(shapes[0][0]) == 0
        return full and fmt.numbers(shapes[0]) is FLOAT32

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.size = size(shapes[0])
        same = self.shares_memory(device.format, *shapes)
        self.planes = None if same else Planes(device, shapes[0][0], size(shapes[0][1:]))

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        if self.planes:
            self.planes.read(y, x[0], 0, run.images)
        else:
            copy(y, x[0], run.images * self.size)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is None:
            return
        if self.planes:
            self.planes.write(dx[0], dy, 0, run.images)
        else:
            copy(dx[0], dy, run.images * self.size)
