"""3x3 convolution with stride 1 by Winograd's minimal filtering on GPUs: transforms that pass over
memory, and products of tiles between."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import FLOAT32
from mpitrain.engine.gpu import FORMAT
from mpitrain.engine.tile import DEPTH, PLAIN, TILES, Tile, splits_of, tail_of, tile_time
from mpitrain.job.cut import even, parts, round_up
from mpitrain.layers.conv.algorithm import ByCorrelation, PassName
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.tiles import time_of
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program

PIECE = 1 << 27
"""Values of transformed tiles that are in scratch at once, x's and y's together (512 MiB, and a
16th of the device's memory at most): more tiles than that go in several pieces.

Pieces that fit an H200's second-level cache are slower by a quarter: their products have too few
tiles.
"""

MOST_SUMS = 1 << 24
"""Values at most of the transformed gradients by the weights whose tiles are split (64 MiB)."""

CHAIN = 2048
"""Tiles that one register adds up, where memory allows: rounding grows with the root of it."""

SWEEP = 0.065
"""Time of reading or writing a thousand values by the whole device, in units of tile_time on one
compute unit of an H200, times units."""


class WinogradTiles:
    """A correlation on one device, `out` x `out` outputs at a time."""

    def __init__(self, device: Engine, sums: Correlation, out: int) -> None:
        self._device, self._c, self._out = device, sums, out
        self._points = (out + 2) ** 2
        self._depth = round_up(sums.c, 32)
        self._tile = _widest(device, round_up(sums.k, 32), "128x128", "256x64", "128x64", "64x64")
        self._width = round_up(sums.k, self._tile.n)
        self._filters = round_up(self._points * self._depth * self._width, 128)

    @cached_property
    def kernels(self) -> Program:
        """The transforms; compiled when first asked for, so that times can be compared before."""
        return self._device.program("winograd", OUT=self._out, BLOCK=FORMAT.block)

    @cached_property
    def products(self) -> Program:
        """The products of tiles; likewise."""
        return self._device.program("products", LEFT_TURNED=1, **self._tile.definitions())

    def _tiles(self, images: int) -> int:
        return images * parts(self._c.p, self._out) * parts(self._c.q, self._out)

    def _rows(self, images: int) -> int:
        """Tiles in a piece."""
        most = max(
            self._tile.m,
            min(PIECE, self._device.memory // 64) // (self._points * (self._depth + self._width)),
        )
        return round_up(even(self._tiles(images), most), self._tile.m)

    def time(self, images: int) -> float:
        """Its time by a count, comparable with tile_time."""
        rows = self._rows(images)
        pieces = parts(self._tiles(images), rows)
        many = self._points * rows // self._tile.m * self._width // self._tile.n
        products = self._turns(many) * tile_time(
            self._device.units, self._tile, 1, self._depth // DEPTH, 1, PLAIN
        )
        swept = self._points * rows * (self._depth + self._width) * 2 + self._out**2 * rows * (
            self._depth + self._width
        )
        return (
            pieces * (products + SWEEP * swept / 1000 / self._device.units)
            + self._filters * SWEEP / 1000 / self._device.units
        )

    def _turns(self, many: int) -> float:
        """Times that so many tiles fill the device."""
        whole, splits = tail_of(self._device.units, self._tile, many, self._depth // DEPTH)
        turns = parts(whole, self._tile.resident * self._device.units)
        return turns + (0.3 + 1 / splits if whole < many else 0)

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        most = max(self._rows(n) for n in range(1, images + 1))
        values = (
            round_up(self._points * most * self._depth, 128) + self._points * most * self._width
        )
        return self._filters + values + self._tail

    @property
    def _tail(self) -> int:
        """Values of a turn of tiles."""
        return self._tile.resident * self._device.units * self._tile.m * self._tile.n

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
        c, group, tile = self._c, self._device.group, self._tile
        rows, tiles = self._rows(images), self._tiles(images)
        start = self._filters
        stop = start + round_up(self._points * rows * self._depth, 128)
        filters, inputs = scratch.part(0, start), scratch.part(start, stop)
        products = scratch.part(stop, stop + self._points * rows * self._width)
        many = self._points * rows // tile.m * self._width // tile.n
        whole, splits = tail_of(self._device.units, tile, many, self._depth // DEPTH)
        stop += self._points * rows * self._width
        tail = scratch.part(stop, stop + self._tail)
        self.kernels.filters(
            (self._width // 4, self._depth), filters, weight, c.k, c.c, c.out_step, c.in_step,
            *c.first_tap, *c.tap_step, c.tap_row, self._width, group=(group, 1),
        )  # fmt: skip
        for first in range(0, tiles, rows):
            few = min(rows, tiles - first)
            self.kernels.inputs(
                (8 * rows, self._depth // 32), inputs, x, c.h, c.w, c.p, c.q, *c.padding, first,
                few, rows, self._depth, group=(group, 1),
            )  # fmt: skip
            self.products.products(
                ((whole + (many - whole) * splits) * 8 * tile.y, 1), products, tail, inputs,
                filters, rows, self._width, self._depth, 0, self._points, whole, splits,
                group=(8 * tile.y, 1),
            )  # fmt: skip
            if whole < many:
                self.products.finish(
                    (many - whole) * tile.m * tile.n // 4, products, tail, rows, self._width, 0,
                    many, whole, splits, group=group
                )  # fmt: skip
            self.kernels.outputs(
                (8 * few, parts(c.k, 32)), y, products, bias or weight, c.k, c.p, c.q, first, few,
                rows, self._width, int(bias is not None), int(rectify), group=(group, 1),
            )  # fmt: skip


class WinogradTilesFilter:
    """The gradient by the weights on one device, `out` x `out` values of dy at a time."""

    def __init__(self, device: Engine, geometry: Geometry, out: int) -> None:
        self._device, self._g, self._out = device, geometry, out
        self._points = (out + 2) ** 2
        k, c = round_up(geometry.k, 32), round_up(geometry.c, 32)
        large = k % 128 == 0 and c % 128 == 0 and self._points * k * c // 128**2 >= 2 * device.units
        self._tile = _widest(device, 128 if large else 64, "128x128", "64x64")
        self._height, self._width = (
            round_up(geometry.k, self._tile.m),
            round_up(geometry.c, self._tile.n),
        )

    @cached_property
    def kernels(self) -> Program:
        """The transforms; compiled when first asked for, so that times can be compared before."""
        return self._device.program("winograd", OUT=self._out, BLOCK=FORMAT.block)

    @cached_property
    def products(self) -> Program:
        """The products of tiles; likewise."""
        return self._device.program("products", LEFT_TURNED=0, **self._tile.definitions())

    def _tiles(self, images: int) -> int:
        return images * parts(self._g.p, self._out) * parts(self._g.q, self._out)

    def _rows(self, images: int) -> int:
        """Tiles in a piece."""
        most = max(
            DEPTH,
            min(PIECE, self._device.memory // 64) // (self._points * (self._height + self._width)),
        )
        return round_up(even(self._tiles(images), most), DEPTH)

    def _many(self) -> int:
        return self._points * self._height // self._tile.m * self._width // self._tile.n

    def _parts(self, images: int) -> int:
        """Parts of a piece, each with its sums."""
        most = max(1, MOST_SUMS // (self._points * self._height * self._width))
        rows = self._rows(images)
        return max(
            splits_of(self._device.units, self._tile, self._many(), rows // DEPTH, most),
            min(most, rows // CHAIN),
        )

    def time(self, images: int) -> float:
        """Its time by a count, comparable with tile_time."""
        rows, shares = self._rows(images), self._parts(images)
        pieces = parts(self._tiles(images), rows)
        products = tile_time(
            self._device.units, self._tile, self._many(), rows // DEPTH, shares, PLAIN
        )
        swept = (2 * self._points + self._out**2) * rows * (self._height + self._width)
        sums = self._points * self._height * self._width * shares * 2
        return pieces * products + SWEEP * (pieces * swept + sums) / 1000 / self._device.units

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        rows = max(self._rows(n) for n in range(1, images + 1))
        shares = max(self._parts(n) for n in range(1, images + 1))
        sums = round_up(shares * self._points * self._height * self._width, 128)
        return (
            sums
            + round_up(self._points * rows * self._height, 128)
            + self._points * rows * self._width
        )

    def __call__(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `accumulate`."""
        g, group, tile = self._g, self._device.group, self._tile
        rows, tiles, shares = self._rows(images), self._tiles(images), self._parts(images)
        start = round_up(shares * self._points * self._height * self._width, 128)
        stop = start + round_up(self._points * rows * self._height, 128)
        sums, gradients = scratch.part(0, start), scratch.part(start, stop)
        inputs = scratch.part(stop, stop + self._points * rows * self._width)
        for first in range(0, tiles, rows):
            few = min(rows, tiles - first)
            self.kernels.gradients(
                (8 * rows, parts(g.k, 32)), gradients, dy, g.p, g.q, first, few, rows, self._height,
                group=(group, 1)
            )  # fmt: skip
            self.kernels.inputs(
                (8 * rows, parts(g.c, 32)), inputs, x, g.h, g.w, g.p, g.q, *g.padding, first, few,
                rows, self._width, group=(group, 1),
            )  # fmt: skip
            self.products.products(
                (self._many() * 8 * tile.y, shares), sums, sums, gradients, inputs,
                self._height, self._width, rows, int(first > 0), self._points, self._many(), 1,
                group=(8 * tile.y, 1),
            )  # fmt: skip
        self.kernels.finish(
            (parts(g.c, 4), g.k), dweight, sums, g.c, self._height, self._width, shares,
            int(accumulate), group=(group, 1)
        )  # fmt: skip


def _widest(device: Engine, width: int, *names: str) -> Tile:
    """The first of these tiles that divides a width and fits the device's local memory; the last
    one if none does."""
    fitting = (
        tile
        for tile in (TILES[name] for name in names)
        if width % tile.n == 0 and tile.local_memory <= device.local_memory
    )
    return next(fitting, TILES[names[-1]])


class WinogradTilesFamily(ByCorrelation):
    """Tiles of 4x4 and of 2x2 outputs."""

    _out: ClassVar = {"winograd4": 4, "winograd2": 2}

    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        """Few channels are in other blocks than the transforms take, and tensor cores have other
        numbers."""
        minimal = (g.r, g.s, *g.stride, g.groups) == (3, 3, 1, 1, 1) and max(g.padding) <= 2
        wide = all(device.format.block_of(each) == FORMAT.block for each in (g.c, g.k))
        plain = device.format.images is FLOAT32
        return tuple(self._out) if minimal and wide and plain else ()

    def compile(self, chosen: WinogradTiles | WinogradTilesFilter) -> None:
        _ = chosen.kernels, chosen.products

    def correlation(self, name: str, device: Engine, sums: Correlation) -> WinogradTiles:
        return WinogradTiles(device, sums, self._out[name])

    def filter(self, name: str, device: Engine, g: Geometry) -> WinogradTilesFilter:
        return WinogradTilesFilter(device, g, self._out[name])

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        return time_of(self, name, device, g, what, images)
