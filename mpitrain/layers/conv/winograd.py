"""3x3 convolution with stride 1 by Winograd's minimal filtering, on images in blocks of channels
(CPUs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import even, parts, round_up
from mpitrain.layers.conv.algorithm import ByCorrelation, PassName
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array

VECTORS = 2
"""Vectors of output channels in a register tile."""

WANTED = 1 << 17
"""Values of transformed tiles that a work-item has in hand, x and y together: 512 KiB, half a
second-level cache."""

LEAST = 56
"""Tiles at least, however many channels: each transformed filter that is read from memory has to
serve that many."""


MOST_SUMS = 1 << 23
"""Values of transformed sums that shares of the tiles may keep in all: 32 MiB."""

SHARE = 128
"""Tiles that a share has at least: fewer, and adding to sums in memory takes longer than the
products."""

BOUND = 5e-5
"""Largest error of 4x4 outputs, in standard deviations of the result; the tuner and the tests hold
it to that. Of 2x2 it is a tenth."""


class Winograd:
    """A correlation on one device, `out` x `out` outputs at a time."""

    def __init__(self, device: Engine, sums: Correlation, out: int) -> None:
        self._device, self._c, self._out = device, sums, out
        self._rows = 8 if device.wide == 16 else 4
        self._program = device.program(
            "winograd", ROWS=self._rows, VECTORS=VECTORS, STEP=device.wide, OUT=out
        )

    def _groups(self) -> int:
        return parts(self._c.k, VECTORS * self._device.wide)

    def _packed(self) -> int:
        point = self._groups() * self._c.c * VECTORS * self._device.wide + self._device.wide
        return round_up((self._out + 2) ** 2 * point, 128)

    def _channels(self) -> int:
        """Of x and y, with those that fill up."""
        return round_up(self._c.c, self._device.wide) + self._groups() * VECTORS * self._device.wide

    def _most(self) -> int:
        """Tiles of a unit, at most."""
        many = max(LEAST, WANTED // ((self._out + 2) ** 2 * self._channels()))
        return round_up(many, self._rows)

    def _scratch(self, many: int) -> int:
        """Values of scratch of a work-item whose units have so many tiles."""
        return (self._out + 2) ** 2 * (self._channels() * many + 2 * self._device.wide)

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        return self._packed() + 2 * self._device.units * self._scratch(self._most())

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
        c, wide = self._c, self._device.wide
        packed = self._packed()
        self._program.transform_filters(
            (self._groups(), parts(c.c, wide)), scratch, weight, c.k, c.c, c.out_step, c.in_step,
            *c.first_tap, *c.tap_step, c.tap_row, weight.size, group=(1, 1),
        )  # fmt: skip
        tiles = images * parts(c.p, self._out) * parts(c.q, self._out)
        units = round_up(parts(tiles, self._most()), self._device.units)  # a whole number of turns
        many = round_up(parts(tiles, units), self._rows)
        items, item = min(parts(tiles, many), 2 * self._device.units), self._scratch(many)
        self._program.winograd(
            items, y, x, scratch, bias or scratch, scratch.part(packed, packed + items * item),
            images, c.c, c.h, c.w, c.k, c.p, c.q, *c.padding, many, int(bias is not None),
            int(rectify), item, group=1,
        )  # fmt: skip


class WinogradFilter:
    """The gradient by the weights on one device, `out` x `out` values of dy at a time."""

    def __init__(self, device: Engine, geometry: Geometry, out: int) -> None:
        self._device, self._g, self._out = device, geometry, out
        self._rows = 8 if device.wide == 16 else 4
        self._program = device.program(
            "winograd_filter", ROWS=self._rows, VECTORS=VECTORS, STEP=1, OUT=out
        )
        wide, points = device.wide, (out + 2) ** 2
        self._groups, self._blocks = parts(geometry.k, VECTORS * wide), parts(geometry.c, wide)
        self._sums = points * (self._groups * self._blocks * VECTORS * wide * wide + wide)

    def _tiles(self, images: int) -> int:
        return images * parts(self._g.p, self._out) * parts(self._g.q, self._out)

    def _tile_parts(self, images: int) -> int:
        """Shares of the tiles: they need no work twice, but sums of their own, so they are to be
        large and not too many. A last turn of the cores that is not full would leave some idle."""
        units = self._device.units
        most = min(2 * units, MOST_SUMS // self._sums, self._tiles(images) // SHARE)
        return max(1, most - most % units if most > units else most)

    def _out_parts(self, tile_parts: int) -> int:
        """Shares of the output channels where those do not keep every core busy: each transforms x
        for itself."""
        return min(self._groups, parts(self._device.units, tile_parts))

    def _channels(self, out_parts: int) -> int:
        """Of x, and of a work-item's share of dy."""
        return (self._blocks + parts(self._groups, out_parts) * VECTORS) * self._device.wide

    def _most(self, out_parts: int) -> int:
        """Tiles that a work-item has in hand, at most."""
        fit = WANTED // ((self._out + 2) ** 2 * self._channels(out_parts))
        return max(LEAST, fit, min(256, self._sums // 2**14))

    def _scratch(self, out_parts: int, many: int) -> int:
        """Values of scratch of a work-item that has so many tiles in hand."""
        return (self._out + 2) ** 2 * (self._channels(out_parts) * many + 2 * self._device.wide)

    def _need(self, tile_parts: int) -> int:
        out_parts = self._out_parts(tile_parts)
        work = tile_parts * out_parts * self._scratch(out_parts, self._most(out_parts))
        return round_up(tile_parts * self._sums, 128) + work

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        return max(self._need(tile_parts) for tile_parts in range(1, self._tile_parts(images) + 1))

    def __call__(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `accumulate`."""
        g = self._g
        tile_parts = self._tile_parts(images)
        out_parts = self._out_parts(tile_parts)
        many = even(parts(self._tiles(images), tile_parts), self._most(out_parts))
        start, shares = round_up(tile_parts * self._sums, 128), tile_parts * out_parts
        item = self._scratch(out_parts, many)
        self._program.winograd_filter(
            shares, scratch, dy, x, scratch.part(start, start + shares * item), images, g.c, g.h,
            g.w, g.k, g.p, g.q, *g.padding, many, tile_parts, out_parts, item, group=1,
        )  # fmt: skip
        self._program.finish(
            (self._groups, self._blocks),
            dweight,
            scratch,
            g.c,
            g.k,
            tile_parts,
            int(accumulate),
            group=(1, 1),
        )


class WinogradFamily(ByCorrelation):
    """Tiles of 4x4 and of 2x2 outputs."""

    _out: ClassVar = {"winograd4": 4, "winograd2": 2}

    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        minimal = (g.r, g.s, *g.stride, g.groups) == (3, 3, 1, 1, 1) and max(g.padding) <= 2
        return tuple(self._out) if minimal else ()

    def correlation(self, name: str, device: Engine, sums: Correlation) -> Winograd:
        return Winograd(device, sums, self._out[name])

    def filter(self, name: str, device: Engine, g: Geometry) -> WinogradFilter:
        return WinogradFilter(device, g, self._out[name])

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        """Its products, and what it does besides counted as products: a value that is transformed
        costs about as much as 16 of them, one of a filter, which has to come from memory, 40."""
        out = self._out[name]
        points, tiles = (out + 2) ** 2, images * parts(g.p, out) * parts(g.q, out)
        return points * (tiles * g.c * g.k + 16 * tiles * (g.c + g.k) + 40 * g.c * g.k)
