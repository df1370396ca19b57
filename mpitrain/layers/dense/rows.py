"""A dense layer's products on rows as they lie, for few images on a CPU."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import parts, round_up
from mpitrain.layers.dense.way import Way
from mpitrain.runtime.array import Array


class Rows(Way):
    """The three passes on rows as they lie, for few images on a CPU: weights are read or written
    once, and nothing is packed."""

    most_images = 64
    """With more the weights are less of the traffic, and are best packed."""

    def __init__(self, device: Engine, inputs: int, features: int) -> None:
        super().__init__(device, inputs, features)
        self._units, self._wide = device.units, device.wide
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
