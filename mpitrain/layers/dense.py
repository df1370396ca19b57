"""Dense layer: every output is a weighted sum of all inputs."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.layers.bias import BiasGradient
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, size
from mpitrain.report import UserError
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.gemm import Bias, Gemm, Left, Result, matrix


class Dense(Layer):
    """y = x weight' + bias.  dx = dy weight,  dweight = dy' x,  dbias = sum of dy over images.

    x (N, in), y (N, features), weight (features, in). The images are the rows of the products, so that at small batches, where the
    weights are most of the traffic, they are read once.
    """

    keeps = ("x",)
    weight: Array
    dweight: Array
    bias: Array
    dbias: Array

    def __init__(self, features: int, bias: bool = True) -> None:
        if features < 1:
            raise UserError(f"dense: features must be at least 1, got {features}")
        self.features, self.has_bias = features, bias

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise UserError(f"takes one row of values an image, got {shapes[0]}; flatten first")
        return (self.features,)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        inputs = size(shapes[0])
        weight = Parameter((self.features, inputs), "uniform", inputs)
        return (
            {"weight": weight, "bias": Parameter((self.features,), "zeros")}
            if self.has_bias
            else {"weight": weight}
        )

    def flops(self, *shapes: Shape) -> int:
        return 2 * size(shapes[0]) * self.features

    def workspace(self, images: int, *shapes: Shape) -> int:
        return max(
            self._gemm.scratch(images, size(shapes[0])),
            self._gemm.scratch(images, self.features),
            self._gemm.scratch(self.features, images),
        )

    def build(self, device: Device, *shapes: Shape) -> None:
        self._gemm = Gemm(device)
        self._inputs = size(shapes[0])
        self._bias_gradient = BiasGradient(device, self.features, None)

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        self._gemm(
            Result(y, self.features, self.features),
            Left(x[0], self._inputs, 1, self._inputs),
            matrix(self.weight, 1, self._inputs),
            run.images,
            self.features,
            self._inputs,
            self.scratch,
            bias=Bias(self.bias, "column") if self.has_bias else None,
        )

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        self._gemm(
            Result(self.dweight, self._inputs, self._inputs),
            Left(dy, 1, self.features, run.images),
            matrix(x[0], self._inputs, 1),
            self.features,
            self._inputs,
            run.images,
            self.scratch,
            accumulate=run.accumulate,
        )
        if self.has_bias:
            self._bias_gradient(self.dbias, dy, None, run.images, run.accumulate, self.scratch)
        if dx[0] is not None:
            self._gemm(
                Result(dx[0], self._inputs, self._inputs),
                Left(dy, self.features, 1, self.features),
                matrix(self.weight, self._inputs, 1),
                run.images,
                self._inputs,
                self.features,
                self.scratch,
            )
