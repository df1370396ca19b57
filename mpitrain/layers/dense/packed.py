"""A dense layer's products as matrix products whose operands are packed first."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.engine.gemm import Bias, Left, Result, matrix
from mpitrain.layers.dense.way import Way
from mpitrain.runtime.array import Array


class Packed(Way):
    """The three passes as packed matrix products, for any number of images."""

    def __init__(self, device: Engine, inputs: int, features: int) -> None:
        super().__init__(device, inputs, features)
        self._gemm = device.gemm()

    def workspace(self, images: int) -> int:
        shapes = ((images, self._inputs), (images, self._features), (self._features, images))
        return max(self._gemm.scratch(*shape) for shape in shapes)

    def forward(
        self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array
    ) -> None:
        inputs, features = self._inputs, self._features
        self._gemm(
            Result(y, features, features),
            Left(x, inputs, 1, inputs),
            matrix(weight, 1, inputs),
            n,
            features,
            inputs,
            scratch,
            bias=Bias(bias, "column") if bias else None,
        )

    def backward_weight(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, n: int, scratch: Array
    ) -> None:
        inputs, features = self._inputs, self._features
        self._gemm(
            Result(dweight, inputs, inputs),
            Left(dy, 1, features, n),
            matrix(x, inputs, 1),
            features,
            inputs,
            n,
            scratch,
            accumulate=accumulate,
        )

    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        inputs, features = self._inputs, self._features
        self._gemm(
            Result(dx, inputs, inputs),
            Left(dy, features, 1, features),
            matrix(weight, inputs, 1),
            n,
            inputs,
            features,
            scratch,
        )
