"""Convolution straight from its definition, on images in blocks of channels (CPUs)."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import even, parts, round_up
from mpitrain.layers.conv.algorithm import ByCorrelation, PassName
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array

VECTORS = 2
"""Vectors of output channels in a register tile."""

PIECE = 1 << 16
"""Values of x that a work-item has in hand at a time: 256 KiB, a quarter of a second-level
cache."""

SUMS = 1 << 16
"""Values of dweight that a work-item adds up at a time: 256 KiB too."""

NONE, BLOCKS, COMPACT = range(3)
"""Where tiles read x: in place, in a copy with zeros around it, or in one that has few channels
side by side (kernels/cpu/rows.h)."""


class Direct:
    """A correlation on one device: y from x and weight."""

    def __init__(self, device: Engine, sums: Correlation) -> None:
        self._device, self._c = device, sums
        self._form = _form(device, sums.c, sums.within)
        self._rows = _rows(device, sums.q)
        self._pixel = sums.c if self._form == COMPACT else device.wide
        self._program = device.program(
            "direct",
            ROWS=self._rows,
            VECTORS=VECTORS,
            STEP=self._pixel * sums.stride[1],
            COPY=self._form,
        )
        self._pack = device.program("pack", VECTORS=VECTORS, TAPS=sums.r * sums.s).pack

    def _packed(self) -> int:
        c, columns = self._c, VECTORS * self._device.wide
        return round_up(parts(c.k, columns) * columns * c.c * c.r * c.s, 128)

    def _pieces(self, images: int) -> tuple[int, int, int]:
        """(rows, tiles of a row) of a unit, and its values of scratch."""
        c, wide = self._c, self._device.wide
        channels = c.c if self._form == COMPACT else parts(c.c, wide) * wide
        tiles = parts(c.q, self._rows)
        if self._form == NONE and c.r == 1:
            run = even(tiles, max(1, PIECE // (channels * self._rows * c.stride[1])))
            band = even(c.p, max(1, PIECE // (channels * c.w))) if run == tiles else 1
        else:
            run, width = tiles, (c.q - 1) * c.stride[1] + c.s
            band = even(c.p, max(1, (PIECE // (channels * width) - c.r) // c.stride[0] + 1))
        while band > 1 and images * parts(c.p, band) < 4 * self._device.units:
            band = parts(band, 2)
        while (
            run > 1
            and self._form == NONE
            and images * parts(c.p, band) * parts(tiles, run) < 4 * self._device.units
        ):
            run = parts(run, 2)
        if self._form == NONE:
            return band, run, 0
        rows, width = (band - 1) * c.stride[0] + c.r, (c.q - 1) * c.stride[1] + c.s
        return band, run, round_up(rows * width * channels + wide, 16) + 16

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        return self._packed() + 4 * self._device.units * max(
            self._pieces(n)[2] for n in (1, images)
        )

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
        self._pack(
            (parts(c.k, VECTORS * wide), parts(c.c, wide)), scratch, weight, c.k, c.c, c.r,
            c.out_step, c.in_step, *c.first_tap, *c.tap_step, c.tap_row, weight.size, group=(1, 1),
        )  # fmt: skip
        band, run, item = self._pieces(images)
        units = images * parts(c.p, band) * parts((parts(c.q, self._rows)), run)
        items = min(units, 4 * self._device.units)
        self._program.direct(
            items, y, x, scratch, bias or scratch, scratch.part(packed, packed + items * item) if
            item else scratch, images, c.c, c.h, c.w, c.k, c.p, c.q, c.r, c.s, *c.stride,
            *c.padding, *c.size, *c.first_pixel, *c.pixel_step, band, run, int(bias is not None),
            int(rectify), item, group=1,
        )  # fmt: skip


class DirectFilter:
    """The gradient by the weights on one device: dweight from dy and x."""

    def __init__(self, device: Engine, geometry: Geometry) -> None:
        self._device, self._g = device, geometry.flattened()
        g = self._g
        within = g.padding == (0, 0)
        self._form = _form(device, g.c, within)
        self._rows = 8 if device.wide == 16 else 4
        self._program = device.program(
            "direct_filter",
            ROWS=self._rows,
            VECTORS=VECTORS,
            STEP=1,
            TAPS=g.r * g.s,
            COPY=self._form,
        )

    def _ranges(self) -> tuple[int, int, int]:
        """Groups of output channels and blocks of input channels of a unit, and its values of
        dweight."""
        g, wide = self._g, self._device.wide
        groups, blocks = parts(g.k, VECTORS * wide), parts(g.c, wide)
        together, taps = (g.s * g.c, g.r) if self._form == COMPACT else (wide, g.r * g.s)
        tile = taps * round_up(together, self._rows) * VECTORS * wide
        in_range = even(blocks, max(1, SUMS // tile))
        while in_range > 1 and groups * parts(blocks, in_range) < 4 * self._device.units:
            in_range = parts(in_range, 2)
        out_range = 2 if groups * parts(blocks, in_range) >= 8 * self._device.units else 1
        return out_range, in_range, out_range * in_range * tile

    def _pieces(self, images: int) -> tuple[int, int, int, int]:
        """(images, rows, pixels of a row) of a piece, and its values of scratch for copies."""
        g, wide = self._g, self._device.wide
        _, in_range, _ = self._ranges()
        channels = g.c if self._form == COMPACT else in_range * wide
        run = g.q if g.p > 1 or self._form != NONE else even(g.q, 256)
        width = (g.q - 1) * g.stride[1] + g.s
        target = max(run, 224)
        band = min(g.p, max(1, target // run))
        if self._form != NONE:
            band = max(1, min(band, PIECE // (channels * width * g.stride[0])))
        band = even(g.p, band)
        many = max(1, min(images, target // (band * run))) if band == g.p and run == g.q else 1
        if self._form == NONE:
            return many, band, run, 0
        rows = (band - 1) * g.stride[0] + g.r
        return many, band, run, round_up(many * rows * width * channels + 16, 16)

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        item = self._ranges()[2] + max(self._pieces(n)[3] for n in (1, images))
        return 4 * self._device.units * item

    def __call__(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `accumulate`."""
        g, wide = self._g, self._device.wide
        out_range, in_range, sums = self._ranges()
        many, band, run, copies = self._pieces(images)
        units = parts((parts(g.k, VECTORS * wide)), out_range) * parts((parts(g.c, wide)), in_range)
        self._program.direct_filter(
            min(units, 4 * self._device.units), dweight, dy, x, scratch, images, g.c, g.h, g.w, g.k,
            g.p, g.q, g.r, g.s, *g.stride, *g.padding, out_range, in_range, many, band, run,
            int(accumulate), sums + copies, sums, group=1,
        )  # fmt: skip


def _form(device: Engine, channels: int, within: bool) -> int:
    if channels < device.wide:
        return COMPACT
    return NONE if within else BLOCKS


def _rows(device: Engine, width: int) -> int:
    """Pixels in a tile: as many as the registers hold, or fewer where they divide a row of `width`
    with less waste."""
    most = 12 if device.wide == 16 else 6
    # A tile of under about 8 products in flight waits for each (latency 4, two a cycle); its start
    # and end cost some 4 more.
    return min(
        range(1, min(most, width) + 1),
        key=lambda rows: parts(width, rows) * (max(rows * VECTORS, 8) + 4),
    )


class DirectFamily(ByCorrelation):
    """The one algorithm of this file."""

    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        return ("direct",) if g.groups == 1 else ()

    def correlation(self, name: str, device: Engine, sums: Correlation) -> Direct:
        return Direct(device, sums)

    def filter(self, name: str, device: Engine, g: Geometry) -> DirectFilter:
        return DirectFilter(device, g)

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        """Its products."""
        return g.r * g.s * images * g.p * g.q * g.c * g.k
