"""Convolution on NVIDIA's tensor cores: operands of fewer bits, sums in float32, on images in
blocks of 32 channels.

A pass first writes what it multiplies as rows of 128 bytes (kernels/nvidia/tensor_pack.cl), in one
of three formats:

bf16  64 channels rounded to bfloat16 (8 bits of mantissa)
tf32  32 channels rounded to TF32 (11 bits)
high  32 channels as pairs of bfloat16, x = high + low; three products, high high + high low + low
high, give about 16 bits

Forward and backward data are correlations (kernels/nvidia/tensor.cl); so is a gradient by the
filter, with pixels as its depth (kernels/nvidia/tensor_filter.cl), whose instruction does not take
TF32: it uses the pairs of `high`. Sums have a fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np

from mpitrain.engine.engine import Engine
from mpitrain.engine.gpu import FORMAT
from mpitrain.engine.nvidia import Nvidia
from mpitrain.job.cut import parts, round_up
from mpitrain.layers.conv import correlation
from mpitrain.layers.conv.algorithm import Algorithm, Family, PassName, clear_missed
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program

Format = Literal["bf16", "tf32", "high"]
FORMATS: tuple[Format, ...] = ("bf16", "tf32", "high")
"""In the kernels' order of numbers."""

BLOCK = FORMAT.block
"""Channels side by side in images."""
ROW_FLOATS = 32
"""Float32 values in the place of one row."""
MOST_TAPS = 128
"""Taps of a filter whose sums fit into local memory."""
LARGEST_FILTER = 15
"""Filter rows and columns, which have a bit each in the correlation's mask."""


@dataclass(frozen=True)
class Tile:
    """What a group of work-items computes, and how far ahead it copies
    (kernels/nvidia/tensor.cl)."""

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
    alone: float
    """Share of the time of `resident` groups on a unit that a single one takes at least."""
    seconds: Mapping[Format, tuple[float, float]]
    """Format -> microseconds of `resident` groups on a unit: to start and end, and for each stage
    (one H200)."""
    filter_seconds: Mapping[Format, tuple[float, float]]
    """The same of the gradient by the filter."""

    @property
    def rows(self) -> int:
        return 64 * self.groups * self.repeats

    @property
    def items(self) -> int:
        return 128 * self.groups

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"

    def time(self, units: int, groups: int, stages: int, seconds: tuple[float, float]) -> float:
        """Microseconds that so many groups of so many stages take: whole turns of the device, and
        what is left over."""
        whole, rest = divmod(groups, units * self.resident)
        left_over = max(self.alone, parts(rest, units) / self.resident) if rest else 0.0
        return (whole + left_over) * (seconds[0] + seconds[1] * stages)


TILES = {
    "128x128": Tile(
        1, 2, 128, 2, 0, 3, 0.5,
        {"bf16": (7.9, 1.18), "tf32": (7.7, 1.17), "high": (7.0, 1.68)},
        {"bf16": (13.5, 1.49), "high": (15.4, 1.73)},
    ),
    "128x256": Tile(
        2, 1, 256, 4, 1, 1, 0.4,
        {"bf16": (4.2, 0.79), "tf32": (4.3, 0.74), "high": (4.2, 1.04)},
        {"bf16": (12.6, 0.81), "high": (14.7, 1.00)},
    ),
    "64x128": Tile(
        1, 1, 128, 3, 0, 3, 0.8,
        {"bf16": (4.6, 0.66), "tf32": (4.3, 0.70), "high": (4.4, 0.82)},
        {"bf16": (10.1, 0.94), "high": (14.9, 1.03)},
    ),
    "128x64": Tile(
        1, 2, 64, 3, 0, 3, 0.8,
        {"bf16": (5.8, 0.78), "tf32": (5.4, 0.84), "high": (5.9, 0.90)},
        {"bf16": (9.9, 0.94), "high": (14.1, 1.09)},
    ),
    "64x64": Tile(
        1, 1, 64, 4, 0, 3, 0.8,
        {"bf16": (3.1, 0.53), "tf32": (3.0, 0.53), "high": (3.2, 0.56)},
        {"bf16": (9.7, 0.58), "high": (14.7, 0.71)},
    ),
}  # fmt: skip
"""Times were measured over VGG16 and ResNet152 at batch 32; with them the choice costs 1 to 2 %
over the fastest tile of each layer."""

WITHOUT_HOPPER = replace(TILES["128x128"], resident=1, stages=2)
"""The tile where products are mma.sync: the registers of one group a unit."""


def format_of(precision: str) -> Format:
    """The format of a precision; there is none of float32."""
    return FORMATS[FORMATS.index(precision)]


def reciprocal(divisor: int) -> tuple[np.uint32, int]:
    """(factor, shift) with n // divisor == n * factor >> shift for every 0 <= n < 2^31.

    With factor = ceil(2^shift / divisor) and 2^shift >= 2^31 divisor the excess n (factor divisor -
    2^shift) stays under 2^shift.
    """
    shift = 31 + (divisor - 1).bit_length()
    return np.uint32(-(-(1 << shift) // divisor)), shift


def row_channels(fmt: Format) -> int:
    """Channels in a row."""
    return 64 if fmt == "bf16" else 32


def pack_program(device: Engine, fmt: Format) -> Program:
    """The kernels that write rows of a format."""
    return device.program("tensor_pack", FORMAT=FORMATS.index(fmt), MOST_TAPS=MOST_TAPS)


class ImageRows:
    """The rows of images (N, C/32, H, W, 32), or of a filter's taps gathered from them."""

    def __init__(
        self,
        device: Engine,
        fmt: Format,
        channels: int,
        pixels: int,
        gather: Geometry | None = None,
    ) -> None:
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
            self._program.pack_images(
                items, rows, x, images, parts(self._channels, BLOCK), self._pixels, group=256
            )
            return
        self._program.pack_gathered(
            items,
            rows,
            x,
            images,
            FORMAT.block_of(g.c),
            g.c,
            g.h,
            g.w,
            g.p,
            g.q,
            g.r,
            g.s,
            *g.stride,
            *g.padding,
            group=256,
        )


def gathered(g: Geometry) -> Geometry | None:
    """The 1x1 convolution of images whose channels are the taps that a pixel meets; None where that
    is not worth it."""
    if g.c > FORMAT.few or g.r * g.s == 1:
        return None
    return Geometry(g.c * g.r * g.s, 1, g.p * g.q, g.k, 1, 1, 1, g.p * g.q, (1, 1), (0, 0), 1)


def supports(g: Geometry, to_input: bool) -> bool:
    """Whether a convolution can be computed so; to_input: whether its gradient by the input is
    asked for too."""
    small = max(g.r, g.s) <= LARGEST_FILTER and g.r * g.s <= MOST_TAPS
    few = FORMAT.few
    wide = min(g.c, g.k) > few or (not to_input and g.k > few and gathered(g) is not None)
    return g.groups == 1 and small and wide


def definitions(fmt: Format, tile: Tile, hopper: bool) -> dict[str, int]:
    """Build-time facts of kernels/nvidia/tensor.cl."""
    return {
        "FORMAT": FORMATS.index(fmt),
        "ON_HOPPER": int(hopper),
        "GROUPS": tile.groups,
        "REPEATS": tile.repeats,
        "COLUMNS": tile.columns,
        "STAGES": tile.stages,
        "AHEAD": tile.ahead,
        "RESIDENT": tile.resident,
    }


def filter_definitions(fmt: Format, tile: Tile, hopper: bool) -> dict[str, int]:
    """The same of kernels/nvidia/tensor_filter.cl."""
    return {**definitions(fmt, tile, hopper), "PIXELS": filter_pixels(fmt)}


def filter_pixels(fmt: Format) -> int:
    """Pixels in a stage of a gradient by the filter: 32 KiB of tiles of 128 x 128 in every
    format."""
    return 64 if fmt == "bf16" else 32


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
        self._pack = pack_program(device, fmt)

    def _sizes(self, images: int) -> tuple[int, int, int]:
        """Float32 values of x's rows, of a bias and of the packed weights, for the widest tile and
        the largest sum."""
        channels = round_up(self._sums[0].k, max(tile.columns for tile in self._tiles))
        taps = max(each.r * each.s for each in self._sums)
        weights = channels * taps * self._rows.chunks * ROW_FLOATS
        return self._rows.size(images), round_up(channels, 128), weights

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        return sum(self._sizes(images))

    def __call__(
        self,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array | None,
        rectify: bool,
        images: int,
        scratch: Array,
        ready: bool = False,
    ) -> None:
        """y = weight * x + bias, and max(that, 0) if `rectify`; `ready`: scratch starts with x's
        rows."""
        rows_end, bias_end, end = accumulate(self._sizes(images))
        rows, padded, packed = (
            scratch.part(0, rows_end),
            scratch.part(rows_end, bias_end),
            scratch.part(bias_end, end),
        )
        if not ready:
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
        pixels, stages = images * c.p * c.q, self._rows.chunks * c.r * c.s

        def groups(tile: Tile) -> int:
            return parts(pixels, tile.rows) * parts(c.k, tile.columns)

        def time(tile: Tile) -> float:
            return tile.time(self._device.units, groups(tile), stages, tile.seconds[self._format])

        tile = min(self._tiles, key=time)
        weight_rows = round_up(c.k, tile.columns)
        self._pack.pack_weights(
            weight_rows * self._rows.chunks * row_channels(self._format) // 8, packed, padded,
            weight, bias or weight, int(bias is not None), c.k, c.c, weight_rows, c.r, c.s,
            c.out_step, c.in_step, *c.first_tap, *c.tap_step, c.tap_row, int(c.out_step <
            c.in_step), group=64,
        )  # fmt: skip
        kernels = self._device.program("tensor", **definitions(self._format, tile, self._hopper))
        kernels.correlate(
            groups(tile) * tile.items, y, rows, packed, padded, pixels, self._rows.chunks, c.h, c.w,
            c.k, c.p, c.q, c.r, c.s, *c.stride, *c.padding, *c.size, *c.first_pixel, *c.pixel_step,
            weight_rows, int(rectify), *reciprocal(c.p * c.q), *reciprocal(c.q), group=tile.items,
        )  # fmt: skip


class TensorFilter:
    """The gradient by the weights on one device: dweight from dy and x. Scratch starts with dy's
    rows afterwards."""

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
        self._pack = pack_program(device, self.format)

    @property
    def _units(self) -> int:
        """Columns of the product, 64 channels of one tap each."""
        return self._g.r * self._g.s * parts(self._g.c, 64)

    def _groups(self, tile: Tile) -> int:
        return parts(self._g.k, tile.rows) * parts(self._units, tile.columns // 64)

    def _most_parts(self, tile: Tile) -> int:
        """Parts of the pixels with which all groups still run at once."""
        return max(1, tile.resident * self._device.units // self._groups(tile))

    def _split(self, tile: Tile, images: int) -> tuple[int, int]:
        """(parts, pixels of each), not under four stages each."""
        pixels = images * self._g.p * self._g.q
        many = min(self._most_parts(tile), parts(pixels, 4 * self._pixels))
        each = round_up(parts(pixels, many), self._pixels)
        return parts(pixels, each), each

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images, or fewer."""
        most = max(self._most_parts(tile) for tile in self._tiles)
        return (
            self._dy.size(images)
            + self._x.size(images)
            + round_up(most * self._g.k * self._units * 64, 128)
        )

    def __call__(
        self, dweight: Array, dy: Array, x: Array, add: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `add`."""
        g = self._g
        size_dy, size_x = self._dy.size(images), self._x.size(images)
        rows_dy, rows_x = scratch.part(0, size_dy), scratch.part(size_dy, size_dy + size_x)
        sums = scratch.part(size_dy + size_x, scratch.size)
        self._dy.write(rows_dy, dy, images)
        self._x.write(rows_x, x, images)

        def time(tile: Tile) -> float:
            many, each = self._split(tile, images)
            stages = each // self._pixels
            return tile.time(
                self._device.units,
                many * self._groups(tile),
                stages,
                tile.filter_seconds[self.format],
            )

        tile = min(self._tiles, key=time)
        many, each = self._split(tile, images)
        kernels = self._device.program(
            "tensor_filter", **filter_definitions(self.format, tile, self._hopper)
        )
        kernels.filter_parts(
            (self._groups(tile) * tile.items, many), sums, rows_dy, rows_x, images * g.p * g.q,
            self._dy.chunks, self._x.chunks, g.h, g.w, g.k, g.p, g.q, g.r, g.s, *g.stride,
            *g.padding, each, *reciprocal(g.p * g.q), *reciprocal(g.q), group=(tile.items, 1),
        )  # fmt: skip
        self._pack.sum_parts(
            (parts(g.c, 64) * self._device.group, g.k), dweight, sums, many, g.k, g.c, g.r * g.s,
            int(add), group=(self._device.group, 1),
        )  # fmt: skip


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
            return Algorithm(name, forward.workspace, forward, rectifies=True)
        if what == "backward filter":
            by_filter = TensorFilter(device, g, fmt, hopper)
            return Algorithm(name, by_filter.workspace, by_filter, rows=by_filter.format)
        gradient = TensorCorrelations(device, correlation.backward_data(g), fmt, hopper)

        def run(
            dx: Array, dy: Array, weight: Array, images: int, scratch: Array, ready: bool = False
        ) -> None:
            clear_missed(device, g, dx, images)
            gradient(dx, dy, weight, None, False, images, scratch, ready)

        return Algorithm(name, gradient.workspace, run, rows=fmt)

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        """Nothing else computes in its precision."""
        return 0.0
