"""Convolution in groups, depthwise ones among them, straight from its definition, on images in
blocks of channels."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Numbers
from mpitrain.job.cut import even, parts, round_up
from mpitrain.layers.conv.algorithm import ByCorrelation, PassName
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.flat import shares, shares_of, split
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program

PIECE = 1 << 14
"""Values of x that a work-item of a CPU copies at a time: 64 KiB, a few rows of an image."""
PIXELS = 8
"""In a tile on a CPU at most: their sums and a row of the filter are in registers."""
SUMS = 12
"""Taps whose sums a work-item of a CPU has in registers at most, for the filter's gradient."""


class _Lanes:
    """What the passes share: vectors of the channels of y (or dy), each with its group's input
    beside it."""

    def __init__(
        self, device: Engine, groups: int, ins: int, outs: int, taps: tuple[int, int]
    ) -> None:
        """ins, outs: channels of a group that is read, and that the vectors are made of."""
        self.device, self.taps, self.ins = device, taps, ins
        self.channels_in, self.channels = groups * ins, groups * outs
        self.block = device.format.block_of(self.channels)
        self.blocks = parts(self.channels, self.block)
        self.packed = self.blocks * ins * taps[0] * taps[1] * self.block
        """Values of the filters, in blocks."""
        self.facts: dict[str, int] = {
            "INS": ins,
            "OUTS": outs,
            "SINGLE": int(ins == outs == 1),
            "BLOCK": self.block,
            "IN": device.format.block_of(self.channels_in),
            "R": taps[0],
            "S": taps[1],
        }
        self.filters = device.program("grouped_pack", **self.facts)

    @property
    def numbers(self) -> Numbers:
        """Of x and y."""
        return self.device.format.numbers((self.channels, 1, 1))

    def program(self, name: str, stride: tuple[int, int], **more: int) -> Program:
        """Its kernels for steps of `stride` over x."""
        facts = {**self.facts, "U": stride[0], "V": stride[1], **self.numbers.definitions}
        return self.device.program(name, **facts, **more)

    def copied(self, rows: int, width: int) -> int:
        """Values of so many rows of one input channel a vector, as a CPU copies them."""
        return rows * width * self.device.wide


class Grouped:
    """A correlation of each group on one device: y from x and weight."""

    def __init__(self, device: Engine, sums: Correlation) -> None:
        self._device, self._c = device, sums
        self._lanes = _Lanes(device, sums.groups, sums.c, sums.k, (sums.r, sums.s))
        more = {}
        if device.long_items:
            more["PIXELS"] = min(
                range(1, min(PIXELS, sums.q) + 1),
                key=lambda pixels: parts(sums.q, pixels) * (pixels + 2),
            )
        self._kernels = self._lanes.program("grouped", sums.stride, **more)
        self._width = (sums.q - 1) * sums.stride[1] + sums.s

    def _pieces(self, images: int) -> tuple[int, int]:
        """Rows of y in a unit of a CPU, and its values of scratch."""
        c, lanes = self._c, self._lanes
        fit = PIECE // (lanes.ins * lanes.copied(1, self._width))
        band = even(c.p, max(1, (fit - c.r) // c.stride[0] + 1))
        while band > 1 and images * lanes.blocks * parts(c.p, band) < 4 * self._device.units:
            band = parts(band, 2)
        rows = (band - 1) * c.stride[0] + c.r
        return band, round_up(lanes.ins * lanes.copied(rows, self._width), 16)

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        packed = round_up(self._lanes.packed, 128)
        if not self._device.long_items:
            return packed
        return packed + 4 * self._device.units * self._pieces(images)[1]

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
        c, lanes, group = self._c, self._lanes, self._device.group
        items, chunk = split(self._device, lanes.packed)
        lanes.filters.pack(
            items, scratch, weight, lanes.packed, chunk, lanes.channels, c.group_step,
            c.out_step, c.in_step, *c.first_tap, *c.tap_step, c.tap_row, group=group,
        )  # fmt: skip
        place = (
            images, lanes.channels_in, c.h, c.w, lanes.channels, c.p, c.q, *c.padding, *c.size,
            *c.first_pixel, *c.pixel_step,
        )  # fmt: skip
        tail = int(bias is not None), int(rectify)
        if self._device.long_items:
            band, item = self._pieces(images)
            units = images * lanes.blocks * parts(c.p, band)
            start = round_up(lanes.packed, 128)
            self._kernels.grouped(
                min(units, 4 * self._device.units), y, x, scratch, bias or scratch,
                scratch.part(start, scratch.size), *place, band, *tail, item, group=1,
            )  # fmt: skip
            return
        quads = lanes.block // (lanes.numbers.wide or self._device.wide)
        self._kernels.grouped(
            images * lanes.blocks * c.p * c.q * quads, y, x, scratch, bias or scratch, *place,
            *tail, group=group,
        )  # fmt: skip


class GroupedFilter:
    """The gradient by the weights of every group on one device: dweight from dy and x."""

    def __init__(self, device: Engine, geometry: Geometry) -> None:
        self._device, self._g = device, geometry.flattened()
        g = self._g
        self._lanes = _Lanes(device, g.groups, g.c, g.k, (g.r, g.s))
        more = {}
        if device.long_items:
            rows = [rows for rows in range(1, g.r + 1) if g.r % rows == 0 and rows * g.s <= SUMS]
            more["ROWS"] = max(rows, default=1)
        self._kernels = self._lanes.program("grouped_filter", g.stride, **more)
        self._width = (g.q - 1) * g.stride[1] + g.s
        self._shares = shares(device, self._lanes.blocks)

    def _pieces(self) -> tuple[int, int]:
        """Rows of dy that a work-item of a CPU takes at a time, and its values of scratch."""
        g, lanes = self._g, self._lanes
        fit = PIECE // lanes.copied(1, self._width)
        band = even(g.p, max(1, (fit - g.r) // g.stride[0] + 1))
        return band, round_up(lanes.copied((band - 1) * g.stride[0] + g.r, self._width), 16)

    def _count(self, images: int) -> int:
        """Shares of the rows, or on a GPU of the pixels, of so many images."""
        g = self._g
        if self._device.long_items:
            return min(self._shares, images * g.p)
        return shares_of(self._device, self._shares, images, g.p * g.q)

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        count, lanes = self._count(images), self._lanes
        partial = round_up(count * lanes.packed, 128)
        return partial + count * lanes.blocks * self._pieces()[1] * self._device.long_items

    def __call__(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `accumulate`."""
        g, lanes, group = self._g, self._lanes, self._device.group
        count = self._count(images)
        place = (images, lanes.channels_in, g.h, g.w, g.p, g.q, *g.padding)
        if self._device.long_items:
            band, item = self._pieces()
            start = round_up(count * lanes.packed, 128)
            self._kernels.filter(
                (lanes.blocks, count), scratch, dy, x, scratch.part(start, scratch.size), *place,
                band, item, group=(1, 1),
            )  # fmt: skip
        else:
            self._kernels.filter(
                (lanes.blocks * group, count, g.c * g.r), scratch, dy, x, *place,
                group=(group, 1, 1),
            )  # fmt: skip
        n = g.groups * g.k * g.c * g.r * g.s
        items, chunk = split(self._device, n)
        lanes.filters.finish(
            items, dweight, scratch, n, chunk, count, lanes.packed, int(accumulate), group=group
        )


class GroupedFamily(ByCorrelation):
    """The one algorithm of this file."""

    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        fmt = device.format
        alike = fmt.numbers((g.groups * g.c, 1, 1)) is fmt.numbers((g.groups * g.k, 1, 1))
        return ("grouped",) if g.groups > 1 and alike else ()

    def correlation(self, name: str, device: Engine, sums: Correlation) -> Grouped:
        return Grouped(device, sums)

    def filter(self, name: str, device: Engine, g: Geometry) -> GroupedFilter:
        return GroupedFilter(device, g)

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        """Its products: nothing else but the products of `implicit` can be taken."""
        return g.groups * g.r * g.s * images * g.p * g.q * g.c * g.k
