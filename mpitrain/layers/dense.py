"""Dense layer: every output is a weighted sum of all inputs."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.gemm import Bias, Gemm, Left, Result, matrix
from mpitrain.engine.tile import DEPTH, MOST_PARTIAL, Tile, splits_of
from mpitrain.job.cut import parts, round_up
from mpitrain.job.errors import UserError
from mpitrain.layers.bias import BiasGradient
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, size
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

FEW = 64
"""Images up to which the weights are most of the traffic, and are best not packed."""

DENSE_TILES = (Tile(1, 4, 8, 6, 0.45), Tile(2, 4, 8, 4, 0.9), Tile(2, 4, 16, 2, 1.0))
"""For products of few rows (images, or features) and of more, on GPUs."""


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
        return max(
            self._by_rows.workspace(few) if self._by_rows else 0,
            self._by_products.workspace(images),
        )

    def build(self, device: Device, *shapes: Shape) -> None:
        inputs = size(shapes[0])
        products = _ByGemm if device.kind == "cpu" else _ByTiles
        self._by_products = products(device, inputs, self.features)
        self._by_rows = _ByRows(device, inputs, self.features) if device.kind == "cpu" else None
        self._bias_gradient = BiasGradient(device, self.features, None)

    def _way(self, images: int) -> _ByGemm | _ByTiles | _ByRows:
        return self._by_rows if self._by_rows and images <= FEW else self._by_products

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


class _ByTiles:
    """The three passes as products in tiles of a GPU's local memory."""

    def __init__(self, device: Device, inputs: int, features: int) -> None:
        self._device, self._inputs, self._features = device, inputs, features

    def _shapes(self, n: int) -> tuple[tuple[int, int, int], ...]:
        """(M, J, depth) of the three products for n images."""
        inputs, features = self._inputs, self._features
        return (n, features, inputs), (features, inputs, n), (n, inputs, features)

    def _splits(self, m: int, j: int, depth: int) -> tuple[Tile, int, int, int]:
        """(tile, how many, parts of the depth, values of partial sums)."""
        fitting = [each for each in DENSE_TILES if each.local_memory <= self._device.local_memory]
        tile = next((each for each in fitting if each.m >= m), fitting[-1])
        tiles = parts(m, tile.m) * parts(j, tile.n)
        area = tiles * tile.m * tile.n
        splits = splits_of(
            self._device.units, tile, tiles, parts(depth, DEPTH), MOST_PARTIAL // area
        )
        return tile, tiles, splits, area * splits if splits > 1 else 0

    def workspace(self, images: int) -> int:
        return max(
            self._splits(*shape)[3] for n in range(1, images + 1) for shape in self._shapes(n)
        )

    def forward(
        self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array
    ) -> None:
        shape = self._shapes(n)[0]
        self._product(
            y, x, weight, bias, shape, (True, True), (self._inputs, self._inputs), False, scratch
        )

    def backward_weight(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, n: int, scratch: Array
    ) -> None:
        shape, steps = self._shapes(n)[1], (self._features, self._inputs)
        self._product(dweight, dy, x, None, shape, (False, False), steps, accumulate, scratch)

    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        shape, steps = self._shapes(n)[2], (self._features, self._inputs)
        self._product(dx, dy, weight, None, shape, (True, False), steps, False, scratch)

    def _product(
        self,
        c: Array,
        a: Array,
        b: Array,
        bias: Array | None,
        shape: tuple[int, int, int],
        turned: tuple[bool, bool],
        steps: tuple[int, int],
        accumulate: bool,
        scratch: Array,
    ) -> None:
        """c (M, J) = a (M, depth) b (depth, J); an operand that is `turned` lies along the depth,
        in rows of its step."""
        m, j, depth = shape
        tile, tiles, splits, partial = self._splits(m, j, depth)
        kernels = self._device.program(
            "dense", LEFT_TURNED=int(turned[0]), RIGHT_TURNED=int(turned[1]),
            VECTORS=int(self._inputs % 4 == 0 and self._features % 4 == 0), **tile.definitions(),
        )  # fmt: skip
        result = scratch.part(0, partial) if splits > 1 else c
        flags = int(bias is not None), int(accumulate)
        kernels.product(
            (tiles * 8 * tile.y, splits), result, a, b, bias or c, m, j, depth, *steps, *flags,
            group=(8 * tile.y, 1)
        )  # fmt: skip
        if splits > 1:
            kernels.finish(
                m * j, c, result, bias or c, m, j, parts(m, tile.m) * tile.m, parts(j, tile.n) *
                tile.n, splits, *flags, group=self._device.group,
            )  # fmt: skip


class _ByGemm:
    """The three passes as packed matrix products."""

    def __init__(self, device: Device, inputs: int, features: int) -> None:
        self._gemm, self._inputs, self._features = Gemm(device), inputs, features

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


class _ByRows:
    """The three passes on rows as they lie, for few images on a CPU: weights are read or written
    once, and nothing is packed."""

    def __init__(self, device: Device, inputs: int, features: int) -> None:
        self._units, self._wide, self._inputs, self._features = (
            device.units,
            device.wide,
            inputs,
            features,
        )
        self._rows, self._images, self._lines = (4, 4, 8) if device.wide == 16 else (2, 4, 4)
        self._kernels = device.program(
            "dense", ROWS=self._rows, IMAGES=self._images, LINES=self._lines
        )
        share = round_up(parts(features, 4 * device.units), self._rows)
        self._share = min(64, share)

    def workspace(self, images: int) -> int:
        tiles = (
            parts(self._share, self._rows) * parts(images, self._images) * self._rows * self._images
        )
        return parts(self._features, self._share) * tiles * self._wide

    def forward(
        self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array
    ) -> None:
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
            self._features, self._inputs, n, 1, self._features, rows, columns, int(accumulate),
            group=(1, 1),
        )  # fmt: skip

    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        columns = min(512, round_up(parts(self._inputs, 4 * self._units), 2 * self._wide))
        self._kernels.rows_product(
            (1, parts(self._inputs, columns)), dx, dy, weight,
            n, self._inputs, self._features, self._features, 1, n, columns, 0, group=(1, 1),
        )  # fmt: skip
