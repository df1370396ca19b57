"""Dense layer: every output is a weighted sum of all inputs."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.engine import Engine
from mpitrain.job.errors import UserError
from mpitrain.layers.bias import BiasGradient
from mpitrain.layers.dense.packed import Packed
from mpitrain.layers.dense.rows import Rows
from mpitrain.layers.dense.tiled import Tiled
from mpitrain.layers.dense.way import Way
from mpitrain.layers.initial import check, tensors
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, size
from mpitrain.runtime.array import Array

WAYS: dict[str, type[Way]] = {"packed": Packed, "rows": Rows, "tiled": Tiled}
"""By the names that engines give them."""


class Dense(Layer):
    """y = x weight' + bias.  dx = dy weight,  dweight = dy' x,  dbias = sum of dy over images.

    x (N, in), y (N, features), weight (features, in).
    """

    keeps: tuple[str, ...] = ("x",)
    weight: Array
    dweight: Array
    bias: Array
    dbias: Array

    def __init__(self, features: int, bias: bool = True, initial: str = "uniform") -> None:
        """initial: one of those in layers/initial.py."""
        if features < 1:
            raise UserError(f"dense: features must be at least 1, got {features}")
        self.features, self.has_bias, self.initial = features, bias, check(initial)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise UserError(f"takes one row of values an image, got {shapes[0]}; flatten first")
        return (self.features,)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        return tensors((self.features, size(shapes[0])), self.initial, self.has_bias)

    def flops(self, *shapes: Shape) -> int:
        return 2 * size(shapes[0]) * self.features

    def workspace(self, images: int, *shapes: Shape) -> int:
        return max(way.workspace(int(min(images, way.most_images))) for way in self._ways)

    def build(self, device: Engine, *shapes: Shape) -> None:
        self._make_ways(device, size(shapes[0]), self.features)
        self._way(self.capacity).compile(self.capacity)
        self._bias_gradient = BiasGradient(device, self.features, None)

    def _make_ways(self, device: Engine, inputs: int, features: int) -> None:
        self._ways = [WAYS[name](device, inputs, features) for name in device.products]

    def _way(self, images: int) -> Way:
        return next(way for way in self._ways if images <= way.most_images)

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        bias = self.bias if self.has_bias else None
        self._way(run.images).forward(y, x[0], self.weight, bias, run.images, self.scratch)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        way = self._way(run.images)
        way.backward_weight(self.dweight, dy, x[0], run.accumulate, run.images, self.scratch)
        if self.has_bias:
            self._bias_gradient(self.dbias, dy, None, run.images, run.accumulate, self.scratch)
        if dx[0] is not None:
            way.backward_data(dx[0], dy, self.weight, run.images, self.scratch)
