"""Convolution on GPUs as a product of matrices in tiles of local memory, on images in blocks of
channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import FLOAT32
from mpitrain.engine.tile import DEPTH, MOST_PARTIAL, TILES, Tile, splits_of, tile_time
from mpitrain.job.cut import parts, round_up
from mpitrain.layers.conv import correlation
from mpitrain.layers.conv.algorithm import ByCorrelation, PassName
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program

LARGEST_FILTER = 16
"""Rows or columns of a filter at most: a pixel keeps a bit for each."""

PACKED, ALONG_DEPTH, ALONG_COLUMNS = range(3)
"""How the weights lie that tiles read: packed into scratch first, or in place with a 1x1 filter's
depth or columns side by side."""


class Tiles:
    """A correlation on one device by one tile: y from x and weight."""

    def __init__(self, device: Engine, sums: Correlation, tile: Tile) -> None:
        self._device, self._c, self._tile = device, sums, tile
        self._in, self._out = device.format.block_of(sums.c), device.format.block_of(sums.k)
        taps = sums.r * sums.s
        self._steps = parts(taps, 4) if self._in == 4 else parts(sums.c, DEPTH) * taps
        self._columns = round_up(sums.k, tile.n)
        whole = taps == 1 and self._in > 4 and sums.c % DEPTH == 0 and sums.k == self._columns
        self._weights = PACKED
        if whole and (sums.in_step, sums.out_step) == (1, sums.c):
            self._weights = ALONG_DEPTH
        elif whole and (sums.in_step, sums.out_step, sums.first_tap) == (sums.k, 1, (0, 0)):
            self._weights = ALONG_COLUMNS
        packed = self._steps * DEPTH * self._columns if self._weights == PACKED else 0
        self._packed = round_up(packed, 128)

    @cached_property
    def kernels(self) -> Program:
        """Compiled when first asked for, so that times can be compared before."""
        place = int(self._weights == ALONG_DEPTH)
        return self._device.program(
            "tiles", IN=self._in, OUT=self._out, IN_PLACE=place, **self._tile.definitions()
        )

    def _tiles(self, images: int) -> int:
        return parts(images * self._c.p * self._c.q, self._tile.m) * self._columns // self._tile.n

    def _splits(self, images: int) -> int:
        most = MOST_PARTIAL // (images * self._c.p * self._c.q * self._columns)
        return splits_of(
            self._device.units, self._tile, self._tiles(images), self._steps, min(most, 16)
        )

    def time(self, images: int) -> float:
        """Its time by a count, comparable between tiles."""
        return tile_time(
            self._device.units, self._tile, self._tiles(images), self._steps, self._splits(images)
        )

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        partial = max(
            splits * n * self._c.p * self._c.q * self._columns
            for n in range(1, images + 1)
            if (splits := self._splits(n)) > 1 or n == 1
        )
        return self._packed + partial

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
        c, tile, group = self._c, self._tile, self._device.group
        packed = scratch.part(0, self._packed) if self._weights == PACKED else weight
        if self._weights == PACKED:
            self.kernels.pack(
                (self._columns, 8 * parts(c.c, 32)), packed, weight, c.k, c.c, c.r, c.s,
                c.out_step, c.in_step, *c.first_tap, *c.tap_step, c.tap_row, self._columns,
                group=(32, 8),
            )  # fmt: skip
        splits, tiles, pixels = self._splits(images), self._tiles(images), images * c.p * c.q
        result = y
        if splits > 1:
            result = scratch.part(self._packed, self._packed + splits * pixels * self._columns)
        tail = (
            images, c.k, c.p, c.q, *c.size, *c.first_pixel, *c.pixel_step, int(bias is not None),
            int(rectify)
        )  # fmt: skip
        self.kernels.correlate(
            (tiles * 8 * tile.y, splits), result, x, packed, bias or weight, *tail, parts(c.c,
            self._in), c.h, c.w, c.r, c.s, *c.stride, *c.padding, self._steps, self._columns,
            group=(8 * tile.y, 1),
        )  # fmt: skip
        if splits > 1:
            self.kernels.finish(
                pixels * round_up(c.k, self._out) // 4, y, result, bias or weight, *tail, splits,
                self._columns, group=group
            )  # fmt: skip


class TilesFilter:
    """The gradient by the weights on one device by one tile: dweight from dy and x."""

    def __init__(self, device: Engine, geometry: Geometry, tile: Tile) -> None:
        self._device, self._g = device, geometry.flattened()
        self._tile = replace(tile, rate=tile.filter_rate)
        g = self._g
        self._in, self._out = device.format.block_of(g.c), device.format.block_of(g.k)
        self._width = round_up(round_up(g.c, self._in) * g.r * g.s, tile.n)
        self._height = round_up(g.k, tile.m)

    @cached_property
    def kernels(self) -> Program:
        """Compiled when first asked for, so that times can be compared before."""
        return self._device.program(
            "tiles_filter", IN=self._in, OUT=self._out, **self._tile.definitions()
        )

    def _tiles(self) -> int:
        return self._width // self._tile.n * self._height // self._tile.m

    def _shares(self, images: int) -> int:
        steps = parts(images * self._g.p * self._g.q, DEPTH)
        most = MOST_PARTIAL // (self._width * self._height)
        return splits_of(
            self._device.units, self._tile, self._tiles(), steps, max(1, min(most, 512))
        )

    def time(self, images: int) -> float:
        """Its time by a count, comparable between tiles."""
        steps = parts(images * self._g.p * self._g.q, DEPTH)
        return tile_time(self._device.units, self._tile, self._tiles(), steps, self._shares(images))

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        return max(self._shares(n) for n in range(1, images + 1)) * self._width * self._height

    def __call__(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `accumulate`."""
        g, tile = self._g, self._tile
        shares = self._shares(images)
        self.kernels.filter(
            (self._tiles() * 8 * tile.y, shares), scratch, dy, x, images, parts(g.c, self._in), g.h,
            g.w, g.k, g.p, g.q, g.r, g.s, *g.stride, *g.padding, self._width, *divisor(g.p * g.q),
            *divisor(g.q), group=(8 * tile.y, 1),
        )  # fmt: skip
        n = g.k * g.c * g.r * g.s
        self.kernels.finish(
            n, dweight, scratch, g.c, g.r * g.s, n, self._height, self._width, shares,
            int(accumulate), group=self._device.group
        )  # fmt: skip


def divisor(d: int) -> tuple[np.uint32, int]:
    """(factor, bits) by which kernels/gpu/tiles_filter.cl divides by d without a division."""
    bits = (d - 1).bit_length()
    return np.uint32(parts(1 << (31 + bits), d) if d > 1 else 0), bits


class TilesFamily(ByCorrelation):
    """One algorithm for each tile that fits into local memory."""

    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        if device.format.images is not FLOAT32 or g.groups > 1 or max(g.r, g.s) > LARGEST_FILTER:
            return ()
        return [name for name, tile in TILES.items() if tile.local_memory <= device.local_memory]

    def compile(self, chosen: Tiles | TilesFilter) -> None:
        _ = chosen.kernels

    def correlation(self, name: str, device: Engine, sums: Correlation) -> Tiles:
        return Tiles(device, sums, TILES[name])

    def filter(self, name: str, device: Engine, g: Geometry) -> TilesFilter:
        return TilesFilter(device, g, TILES[name])

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        return time_of(self, name, device, g, what, images)


def time_of(
    family: ByCorrelation, name: str, device: Engine, g: Geometry, what: PassName, images: int
) -> float:
    """Time of a pass in units of tile_time."""
    if what == "backward filter":
        return float(family.filter(name, device, g).time(images))
    sums = [correlation.forward(g)] if what == "forward" else correlation.backward_data(g)
    return float(sum(family.correlation(name, device, each).time(images) for each in sums))
