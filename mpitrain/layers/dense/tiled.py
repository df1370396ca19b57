"""A dense layer's products in tiles of a GPU's local memory."""

from __future__ import annotations

from mpitrain.engine.tile import DEPTH, MOST_PARTIAL, Tile, splits_of
from mpitrain.job.cut import parts
from mpitrain.layers.dense.way import Way
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program

DENSE_TILES = (Tile(1, 4, 8, 6, 0.45), Tile(2, 4, 8, 4, 0.9), Tile(2, 4, 16, 2, 1.0))
"""For products of few rows (images, or features) and of more."""

TURNED = ((True, True), (False, False), (True, False))
"""Which operands of the three products lie along the depth."""


class Tiled(Way):
    """The three passes as products in tiles of a GPU's local memory."""

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

    def _kernels(self, tile: Tile, turned: tuple[bool, bool]) -> Program:
        return self._device.program(
            "dense", LEFT_TURNED=int(turned[0]), RIGHT_TURNED=int(turned[1]),
            VECTORS=int(self._inputs % 4 == 0 and self._features % 4 == 0), **tile.definitions(),
        )  # fmt: skip

    def compile(self, images: int) -> None:
        for shape, turned in zip(self._shapes(images), TURNED, strict=True):
            self._kernels(self._splits(*shape)[0], turned)

    def workspace(self, images: int) -> int:
        return max(
            self._splits(*shape)[3] for n in range(1, images + 1) for shape in self._shapes(n)
        )

    def forward(
        self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array
    ) -> None:
        shape = self._shapes(n)[0]
        self._product(
            y, x, weight, bias, shape, TURNED[0], (self._inputs, self._inputs), False, scratch
        )

    def backward_weight(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, n: int, scratch: Array
    ) -> None:
        shape, steps = self._shapes(n)[1], (self._features, self._inputs)
        self._product(dweight, dy, x, None, shape, TURNED[1], steps, accumulate, scratch)

    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        shape, steps = self._shapes(n)[2], (self._features, self._inputs)
        self._product(dx, dy, weight, None, shape, TURNED[2], steps, False, scratch)

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
        kernels = self._kernels(tile, turned)
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
