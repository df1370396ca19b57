"""Convolution on NVIDIA's tensor cores: operands of fewer bits, sums in float32, on images in blocks of 32 channels.

A pass first writes what it multiplies as rows of 128 bytes (kernels/gpu/tensor_pack.cl), in one of three formats:

bf16  64 channels rounded to bfloat16 (8 bits of mantissa)
tf32  32 channels rounded to TF32 (11 bits)
high  32 channels as pairs of bfloat16, x = high + low; three products, high high + high low + low high, give about 16 bits

Forward and backward data are correlations (kernels/nvidia/tensor.cl); so is a gradient by the filter, with pixels as its depth
(kernels/nvidia/tensor_filter.cl), whose instruction does not take TF32: it uses the pairs of `high`. Sums have a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np

from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array
from mpitrain.runtime.counting import parts, round_up
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Program

Format = Literal["bf16", "tf32", "high"]
FORMATS: tuple[Format, ...] = ("bf16", "tf32", "high")
"""In the kernels' order of numbers."""
BLOCK = 32
"""Channels side by side in images."""
ROW_FLOATS = 32
"""Float32 values in the place of one row."""
FEW_CHANNELS = 4
"""Up to so many input channels a filter's taps are gathered into one row a pixel."""
MOST_TAPS = 128
"""Taps of a filter whose sums fit into local memory."""
LARGEST_FILTER = 15
"""Filter rows and columns, which have a bit each in the correlation's mask."""


@dataclass(frozen=True)
class Tile:
    """What a group of work-items computes, and how far ahead it copies (kernels/nvidia/tensor.cl)."""

    groups: int
    """Groups of 128 work-items, each with its own 64 rows a repeat."""
    repeats: int
    columns: int
    stages: int
    """Stages in local memory."""
    ahead: int
    """Stages whose products may be under way while the next one's are issued."""
    resident: int
    """Groups that have to fit on a unit at once."""

    @property
    def rows(self) -> int:
        return 64 * self.groups * self.repeats

    @property
    def items(self) -> int:
        return 128 * self.groups

    @property
    def definitions(self) -> dict[str, int]:
        return {
            "GROUPS": self.groups,
            "REPEATS": self.repeats,
            "COLUMNS": self.columns,
            "STAGES": self.stages,
            "AHEAD": self.ahead,
            "RESIDENT": self.resident,
        }

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


TILES = {
    "128x128": Tile(1, 2, 128, 3, 0, 2),
    "128x256": Tile(2, 1, 256, 4, 1, 1),
    "64x128": Tile(1, 1, 128, 3, 0, 3),
    "128x64": Tile(1, 2, 64, 3, 0, 3),
    "64x64": Tile(1, 1, 64, 4, 0, 3),
}


def reciprocal(divisor: int) -> tuple[np.uint32, int]:
    """(factor, shift) with n // divisor == n * factor >> shift for every 0 <= n < 2^31.

    With factor = ceil(2^shift / divisor) and 2^shift >= 2^31 divisor the excess n (factor divisor - 2^shift) stays under 2^shift.
    """
    shift = 31 + (divisor - 1).bit_length()
    return np.uint32(-(-(1 << shift) // divisor)), shift


def row_channels(fmt: Format) -> int:
    """Channels in a row."""
    return 64 if fmt == "bf16" else 32


def pack_program(device: Device, fmt: Format) -> Program:
    """The kernels that write rows of a format."""
    return device.program("gpu/tensor_pack", FORMAT=FORMATS.index(fmt), MOST_TAPS=MOST_TAPS)


class ImageRows:
    """The rows of images (N, C/32, H, W, 32), or of a filter's taps gathered from them."""

    def __init__(self, device: Device, fmt: Format, channels: int, pixels: int, gather: Geometry | None = None) -> None:
        self._program = pack_program(device, fmt)
        self._channels, self._pixels, self._gather = channels, pixels, gather
        self._items = row_channels(fmt) // 8
        self.chunks = parts(channels, row_channels(fmt))

    def size(self, images: int) -> int:
        """Float32 values of scratch."""
        return round_up(images * self.chunks * self._pixels * ROW_FLOATS, 128)

    def write(self, rows: Array, x: Array, images: int) -> None:
        """Fill `rows` from x."""
        items = images * self.chunks * self._pixels * self._items
        g = self._gather
        if g is None:
            self._program.pack_images(items, rows, x, images, parts(self._channels, BLOCK), self._pixels, group=256)
            return
        self._program.pack_gathered(
            items, rows, x, images, g.c, g.h, g.w, g.p, g.q, g.r, g.s, *g.stride, *g.padding, group=256
        )


def gathered(g: Geometry) -> Geometry | None:
    """The 1x1 convolution of images whose channels are the taps that a pixel meets; None where that is not worth it."""
    if g.c > FEW_CHANNELS or g.r * g.s == 1:
        return None
    return Geometry(g.c * g.r * g.s, 1, g.p * g.q, g.k, 1, 1, 1, g.p * g.q, (1, 1), (0, 0), 1)


class TensorCorrelations:
    """Correlations of the same x on one device, each filling some pixels of y."""

    def __init__(
        self,
        device: Device,
        sums: Sequence[Correlation],
        fmt: Format,
        hopper: bool,
        tile: Tile | None = None,
        gather: Geometry | None = None,
    ) -> None:
        """gather: the convolution whose taps are gathered, where sums is that of `gathered`'s."""
        self._device, self._sums, self._format, self._forced = device, sums, fmt, tile
        first = sums[0]
        self._rows = ImageRows(device, fmt, first.c, first.h * first.w, gather)
        number = FORMATS.index(fmt)
        self._pack = pack_program(device, fmt)
        self._programs = {
            each: device.program("nvidia/tensor", FORMAT=number, ON_HOPPER=int(hopper), **each.definitions)
            for each in ([tile] if tile else TILES.values())
        }

    def _sizes(self, images: int) -> tuple[int, int, int]:
        """Float32 values of x's rows, of a bias and of the packed weights, for the widest tile and the largest sum."""
        columns = max(tile.columns for tile in self._programs)
        channels = round_up(self._sums[0].k, columns)
        taps = max(each.r * each.s for each in self._sums)
        weights = channels * taps * self._rows.chunks * ROW_FLOATS
        return self._rows.size(images), round_up(channels, 128), weights

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        return sum(self._sizes(images))

    def __call__(
        self, y: Array, x: Array, weight: Array, bias: Array | None, rectify: bool, images: int, scratch: Array
    ) -> None:
        """y = weight * x + bias, and max(that, 0) if `rectify`."""
        rows_end, bias_end, end = accumulate(self._sizes(images))
        rows, padded, packed = scratch.part(0, rows_end), scratch.part(rows_end, bias_end), scratch.part(bias_end, end)
        self._rows.write(rows, x, images)
        for each in self._sums:
            self._one(each, y, rows, weight, packed, bias, padded, rectify, images)

    def _one(
        self,
        c: Correlation,
        y: Array,
        rows: Array,
        weight: Array,
        packed: Array,
        bias: Array | None,
        padded: Array,
        rectify: bool,
        images: int,
    ) -> None:
        pixels, chunks = images * c.p * c.q, self._rows.chunks
        tile = self._forced or choose_tile(pixels, c.k, self._device.units)
        weight_rows = round_up(c.k, tile.columns)
        self._pack.pack_weights(
            weight_rows * chunks * row_channels(self._format) // 8, packed, padded, weight, bias or weight,
            int(bias is not None), c.k, c.c, weight_rows, c.r, c.s,
            c.out_step, c.in_step, *c.first_tap, *c.tap_step, c.tap_row, int(c.out_step < c.in_step), group=64,
        )  # fmt: skip
        groups = parts(pixels, tile.rows) * (weight_rows // tile.columns)
        self._programs[tile].correlate(
            groups * tile.items, y, rows, packed, padded, pixels, chunks, c.h, c.w, c.k, c.p, c.q, c.r, c.s,
            *c.stride, *c.padding, *c.size, *c.first_pixel, *c.pixel_step, weight_rows, int(rectify),
            *reciprocal(c.p * c.q), *reciprocal(c.q), group=tile.items,
        )  # fmt: skip


def choose_tile(pixels: int, k: int, units: int) -> Tile:
    """A tile that fills the device without computing much beside the images."""
    return TILES["128x128" if k > 64 else "128x64"]


class TensorFilter:
    """The gradient by the weights on one device: dweight from dy and x."""

    def __init__(self, device: Device, geometry: Geometry, fmt: Format, hopper: bool, tile: Tile | None = None) -> None:
        g = gathered(geometry)
        self._g = g or geometry.flattened()
        self._device, self._tile = device, tile or TILES["128x128"]
        self._format: Format = "bf16" if fmt == "bf16" else "high"
        self._dy = ImageRows(device, self._format, self._g.k, self._g.p * self._g.q)
        self._x = ImageRows(device, self._format, self._g.c, self._g.h * self._g.w, geometry if g else None)
        number, self._pixels = FORMATS.index(self._format), 64 if self._format == "bf16" else 32
        self._program = device.program(
            "nvidia/tensor_filter", FORMAT=number, ON_HOPPER=int(hopper), PIXELS=self._pixels, **self._tile.definitions
        )
        self._sum = pack_program(device, self._format)

    @property
    def _units(self) -> int:
        """Columns of the product, 64 channels of one tap each."""
        return self._g.r * self._g.s * parts(self._g.c, 64)

    @property
    def _tiles(self) -> int:
        return parts(self._g.k, self._tile.rows) * parts(self._units, self._tile.columns // 64)

    def _split(self, images: int) -> tuple[int, int]:
        """(parts, pixels of each) so that all groups run at once."""
        pixels = images * self._g.p * self._g.q
        wanted = max(1, self._tile.resident * self._device.units // self._tiles)
        each = round_up(parts(pixels, min(wanted, parts(pixels, 4 * self._pixels))), self._pixels)
        return parts(pixels, each), each

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        most = max(self._split(n)[0] for n in (1, images))
        return self._dy.size(images) + self._x.size(images) + round_up(most * self._g.k * self._units * 64, 128)

    def __call__(self, dweight: Array, dy: Array, x: Array, add: bool, images: int, scratch: Array) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `add`."""
        g = self._g
        size_dy, size_x = self._dy.size(images), self._x.size(images)
        rows_dy, rows_x = scratch.part(0, size_dy), scratch.part(size_dy, size_dy + size_x)
        sums = scratch.part(size_dy + size_x, scratch.size)
        self._dy.write(rows_dy, dy, images)
        self._x.write(rows_x, x, images)
        many, each = self._split(images)
        self._program.filter_parts(
            (self._tiles * self._tile.items, many), sums, rows_dy, rows_x, images * g.p * g.q, self._dy.chunks, self._x.chunks,
            g.h, g.w, g.k, g.p, g.q, g.r, g.s, *g.stride, *g.padding, each, *reciprocal(g.p * g.q), *reciprocal(g.q),
            group=(self._tile.items, 1),
        )  # fmt: skip
        self._sum.sum_parts(
            (parts(g.c, 64) * 256, g.k), dweight, sums, many, g.k, g.c, g.r * g.s, int(add), group=(256, 1)
        )
