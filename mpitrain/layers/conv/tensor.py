"""Convolution on NVIDIA's tensor cores: operands of fewer bits (tensor_rows.py), sums in float32.

Of the pairs of `high`, three products, high high + high low + low high, give about 16 bits. Forward
and backward data are correlations (kernels/nvidia/tensor.cl); so is a gradient by the filter, with
pixels as its depth (kernels/nvidia/tensor_filter.cl), whose instruction does not take TF32: it uses
the pairs of `high`, written for it. Sums have a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mpitrain.engine.engine import Engine
from mpitrain.engine.gpu import FORMAT
from mpitrain.engine.nvidia import Nvidia
from mpitrain.job.cut import parts, round_up
from mpitrain.layers.conv import correlation
from mpitrain.layers.conv.algorithm import Algorithm, Family, PassName, clear, missed_size
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.packed_weights import NO_BIAS, PackedWeights, Packing
from mpitrain.layers.conv.tensor_rows import (
    GROUP,
    MOST_TAPS,
    Format,
    ImageRows,
    format_of,
    gathered,
)
from mpitrain.layers.conv.tensor_tiles import (
    TILES,
    WITHOUT_HOPPER,
    Tile,
    definitions,
    filter_definitions,
    filter_pixels,
)
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program

LARGEST_FILTER = 15
"""Filter rows and columns, which have a bit each in the correlation's mask."""
TURNS = 3
"""That the groups of a gradient by the filter take on the device, at most."""
TOGETHER = 8
"""Parts that a work-item of kernels/nvidia/tensor_sum.cl asks for at once."""
SUM_TIME = 3.2e-6
"""Microseconds that a part's sum costs to be written and read again (one H200)."""


def reciprocal(divisor: int) -> tuple[np.uint32, int]:
    """(factor, shift) with n // divisor == n * factor >> shift for every 0 <= n < 2^31.

    With factor = ceil(2^shift / divisor) and 2^shift >= 2^31 divisor the excess n (factor divisor -
    2^shift) stays under 2^shift.
    """
    shift = 31 + (divisor - 1).bit_length()
    return np.uint32(parts(1 << shift, divisor)), shift


def supports(g: Geometry, to_input: bool) -> bool:
    """Whether a convolution can be computed so; to_input: whether its gradient by the input is
    asked for too."""
    small = max(g.r, g.s) <= LARGEST_FILTER and g.r * g.s <= MOST_TAPS
    few = FORMAT.few
    wide = min(g.c, g.k) > few or (not to_input and g.k > few and gathered(g) is not None)
    return g.groups == 1 and small and wide


class TensorCorrelations:
    """Correlations of the same x on one device, each filling some pixels of y."""

    def __init__(
        self,
        device: Engine,
        sums: Sequence[Correlation],
        fmt: Format,
        hopper: bool,
        tile: Tile | None = None,
        gather: Geometry | None = None,
    ) -> None:
        """gather: the convolution whose taps are gathered, where sums is that of `gathered`'s."""
        self._device, self._sums, self._format, self._hopper = device, sums, fmt, hopper
        self._tiles = [tile] if tile else list(TILES.values()) if hopper else [WITHOUT_HOPPER]
        first = sums[0]
        self._rows = ImageRows(device, fmt, first.c, first.h * first.w, gather)
        self.packings = [Packing(fmt, each) for each in sums]
        """Of the weights, which a graph may have written before; else each call writes them."""
        self._own: PackedWeights | None = None

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        return self._rows.size(images)

    def __call__(
        self,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array | None,
        rectify: bool,
        images: int,
        scratch: Array,
    ) -> None:
        """y = weight * x + bias, and max(that, 0) if `rectify`."""
        rows = self._rows.of(x, images, scratch.part(0, self._rows.size(images)))
        if self._own is None and any(each.rows is None for each in self.packings):
            places = [(each, 0, 0 if bias else NO_BIAS) for each in self.packings]
            self._own = PackedWeights(self._device, places)
        if self._own is not None:
            self._own.write(weight, bias or weight)
        for each in self.packings:
            self._one(each, y, rows, rectify, images)

    def _one(self, packing: Packing, y: Array, rows: Array, rectify: bool, images: int) -> None:
        c = packing.sums
        assert packing.rows and packing.bias
        pixels, stages = images * c.p * c.q, self._rows.chunks * c.r * c.s

        def groups(tile: Tile) -> int:
            return parts(pixels, tile.rows) * parts(c.k, tile.columns)

        def time(tile: Tile) -> float:
            return tile.time(self._device.units, groups(tile), stages, tile.seconds[self._format])

        tile = min(self._tiles, key=time)
        kernels = self._device.program("tensor", **definitions(self._format, tile, self._hopper))
        kernels.correlate(
            groups(tile) * tile.items, y, rows, packing.rows, packing.bias, pixels,
            self._rows.chunks, c.h, c.w, c.k, c.p, c.q, c.r, c.s, *c.stride, *c.padding, *c.size,
            *c.first_pixel, *c.pixel_step, packing.count, parts(c.k, tile.columns), int(rectify),
            *reciprocal(c.p * c.q), *reciprocal(c.q), group=tile.items,
        )  # fmt: skip


class TensorFilter:
    """The gradient by the weights on one device: dweight from dy and x."""

    def __init__(
        self,
        device: Engine,
        geometry: Geometry,
        fmt: Format,
        hopper: bool,
        tile: Tile | None = None,
    ) -> None:
        g = gathered(geometry)
        self._g = g or geometry.flattened()
        self._device, self._hopper = device, hopper
        self._tiles = [tile] if tile else list(TILES.values()) if hopper else [WITHOUT_HOPPER]
        self.format: Format = "bf16" if fmt == "bf16" else "high"
        self._dy = ImageRows(device, self.format, self._g.k, self._g.p * self._g.q)
        self._x = ImageRows(
            device, self.format, self._g.c, self._g.h * self._g.w, geometry if g else None
        )
        self._pixels = filter_pixels(self.format)
        self._sum = sum_program(device, self._g.r * self._g.s)

    @property
    def _units(self) -> int:
        """Columns of the product, 64 channels of one tap each."""
        return self._g.r * self._g.s * parts(self._g.c, 64)

    @property
    def _sums(self) -> int:
        """Of each part."""
        return self._g.k * self._units * 64

    def _groups(self, tile: Tile) -> int:
        return parts(self._g.k, tile.rows) * parts(self._units, tile.columns // 64)

    def _most_parts(self, tile: Tile, turns: int) -> int:
        """Parts of the pixels whose groups take so many turns on the device."""
        return max(1, turns * tile.resident * self._device.units // self._groups(tile))

    def _ways(self, images: int) -> Iterator[tuple[float, Tile, int, int]]:
        """(microseconds, tile, parts, pixels of each), not under four stages each. A group more
        than fits at once costs a whole turn, so that more parts than that can pay."""
        pixels = images * self._g.p * self._g.q
        for tile in self._tiles:
            for turns in range(1, TURNS + 1):
                many = min(self._most_parts(tile, turns), parts(pixels, 4 * self._pixels))
                each = round_up(parts(pixels, many), self._pixels)
                many = parts(pixels, each)
                seconds = tile.filter_seconds[self.format]
                time = tile.time(
                    self._device.units, many * self._groups(tile), each // self._pixels, seconds
                )
                yield time + many * self._sums * SUM_TIME, tile, many, each

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        most = max(self._most_parts(tile, TURNS) for tile in self._tiles)
        rows = self._dy.size(images) + self._x.size(images)
        return rows + round_up(most * self._sums, 128)

    def __call__(
        self, dweight: Array, dy: Array, x: Array, add: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `add`."""
        g = self._g
        size_dy, size_x = self._dy.size(images), self._x.size(images)
        rows_dy, rows_x = scratch.part(0, size_dy), scratch.part(size_dy, size_dy + size_x)
        sums = scratch.part(size_dy + size_x, scratch.size)
        rows_dy, rows_x = self._dy.of(dy, images, rows_dy), self._x.of(x, images, rows_x)

        _, tile, many, each = min(self._ways(images), key=lambda way: way[0])
        kernels = self._device.program(
            "tensor_filter", **filter_definitions(self.format, tile, self._hopper)
        )
        kernels.filter_parts(
            (self._groups(tile) * tile.items, many), sums, rows_dy, rows_x, images * g.p * g.q,
            self._dy.chunks, self._x.chunks, g.h, g.w, g.k, g.p, g.q, g.r, g.s, *g.stride,
            *g.padding, each, *reciprocal(g.p * g.q), *reciprocal(g.q), group=(tile.items, 1),
        )  # fmt: skip
        items, lanes = sum_items(g.k, g.c, g.r * g.s, many)
        self._sum.sum_parts(items, dweight, sums, many, g.k, g.c, lanes, int(add), group=(GROUP, 1))


def sum_program(device: Engine, taps: int) -> Program:
    """The kernel that adds up parts of a gradient by filters of so many taps."""
    return device.program("tensor_sum", TAPS=taps, ITEMS=GROUP, TOGETHER=TOGETHER)


def sum_items(k: int, c: int, taps: int, many: int) -> tuple[tuple[int, int], int]:
    """(work-items, lanes) that add up so many parts of a gradient (k, c, taps): lanes where there
    are more parts than one asks for at once, and work-items without other work."""
    lanes = 1
    while lanes < 16 and TOGETHER * lanes < many and 2 * lanes * taps * 16 <= GROUP:
        lanes *= 2
    chunks = parts(c, 64)
    if taps == 1:
        return (parts(k * chunks * 16, GROUP // lanes) * GROUP, 1), lanes
    return (chunks * GROUP, k), lanes


class TensorFamily(Family):
    """One algorithm, which takes the tile of least time by itself."""

    precise = True

    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        fits = device.precision != "float32" and supports(g, what == "backward data")
        return ("tensor",) if fits else ()

    def make(self, name: str, device: Engine, g: Geometry, what: PassName) -> Algorithm:
        assert isinstance(device, Nvidia)
        fmt, hopper = format_of(device.precision), device.wgmma
        if what == "forward":
            flat = gathered(g)
            sums = [correlation.forward(flat or g)]
            gather = g if flat else None
            forward = TensorCorrelations(device, sums, fmt, hopper, gather=gather)
            return Algorithm(
                name, forward.workspace, forward, rectifies=True, packings=forward.packings
            )
        if what == "backward filter":
            by_filter = TensorFilter(device, g, fmt, hopper)
            return Algorithm(name, by_filter.workspace, by_filter)
        gradient = TensorCorrelations(device, correlation.backward_data(g), fmt, hopper)
        missed = missed_size(device, g)

        def run(dx: Array, dy: Array, weight: Array, images: int, scratch: Array) -> None:
            clear(dx, images * missed)
            gradient(dx, dy, weight, None, False, images, scratch)

        return Algorithm(name, gradient.workspace, run, packings=gradient.packings)

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        """Nothing else computes in its precision."""
        return 0.0
