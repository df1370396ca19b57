"""Dense layer: every output is a weighted sum of all inputs."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.gemm import Bias, Gemm, Left, Result, matrix
from mpitrain.job.cut import parts, round_up
from mpitrain.job.errors import UserError
from mpitrain.layers.bias import BiasGradient
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, size
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

FEW = 64
"""Images up to which the weights are most of the traffic, and are best not packed."""


class Dense(Layer):
    """y = x weight' + bias.  dx = dy weight,  dweight = dy' x,  dbias = sum of dy over images.

    x (N, in), y (N, features), weight (features, in).
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
        few = min(images, FEW)
        return max(self._by_rows.workspace(few) if self._by_rows else 0, self._by_gemm.workspace(images))

    def build(self, device: Device, *shapes: Shape) -> None:
        inputs = size(shapes[0])
        self._by_gemm = _ByGemm(device, inputs, self.features)
        self._by_rows = _ByRows(device, inputs, self.features) if device.kind == "cpu" else None
        self._bias_gradient = BiasGradient(device, self.features, None)

    def _way(self, images: int) -> _ByGemm | _ByRows:
        return self._by_rows if self._by_rows and images <= FEW else self._by_gemm

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


class _ByGemm:
    """The three passes as packed matrix products."""

    def __init__(self, device: Device, inputs: int, features: int) -> None:
        self._gemm, self._inputs, self._features = Gemm(device), inputs, features

    def workspace(self, images: int) -> int:
        shapes = ((images, self._inputs), (images, self._features), (self._features, images))
        return max(self._gemm.scratch(*shape) for shape in shapes)

    def forward(self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array) -> None:
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


class _ByRows:
    """The three passes on rows as they lie, for few images on a CPU: weights are read or written once, and nothing is packed."""

    def __init__(self, device: Device, inputs: int, features: int) -> None:
        self._units, self._wide, self._inputs, self._features = device.units, device.wide, inputs, features
        self._rows, self._images, self._lines = (4, 4, 8) if device.wide == 16 else (2, 4, 4)
        self._kernels = device.program("dense", ROWS=self._rows, IMAGES=self._images, LINES=self._lines)
        share = round_up(parts(features, 4 * device.units), self._rows)
        self._share = min(64, share)

    def workspace(self, images: int) -> int:
        tiles = parts(self._share, self._rows) * parts(images, self._images) * self._rows * self._images
        return parts(self._features, self._share) * tiles * self._wide

    def forward(self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array) -> None:
        self._kernels.dense_forward(
            parts(self._features, self._share), y, x, weight, bias or weight, scratch,
            n, self._inputs, self._features, self._share, int(bias is not None), group=1,
        )  # fmt: skip

    def backward_weight(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, n: int, scratch: Array
    ) -> None:
        rows = min(64, round_up(parts(self._features, 4 * self._units), self._lines))
        columns = min(2048, round_up(self._inputs, 2 * self._wide))
        self._kernels.rows_product(
            (parts(self._features, rows), parts(self._inputs, columns)), dweight, dy, x,
            self._features, self._inputs, n, 1, self._features, rows, columns, int(accumulate), group=(1, 1),
        )  # fmt: skip

    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        columns = min(512, round_up(parts(self._inputs, 4 * self._units), 2 * self._wide))
        self._kernels.rows_product(
            (1, parts(self._inputs, columns)), dx, dy, weight,
            n, self._inputs, self._features, self._features, 1, n, columns, 0, group=(1, 1),
        )  # fmt: skip
