"""3x3 convolution with stride 1 by Winograd's minimal filtering, on images in blocks of channels (CPUs)."""

from __future__ import annotations

from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

VECTORS = 2
"""Vectors of output channels in a register tile."""

WANTED = 1 << 17
"""Values of transformed tiles that a work-item has in hand, x and y together: 512 KiB, half a second-level cache."""

LEAST = 56
"""Tiles at least, however many channels: each transformed filter that is read from memory has to serve that many."""


BOUND = 5e-5
"""Largest error of 4x4 outputs, in standard deviations of the result; the tuner and the tests hold it to that. Of 2x2 it is a tenth."""


class Winograd:
    """A correlation on one device, `out` x `out` outputs at a time."""

    def __init__(self, device: Device, sums: Correlation, out: int) -> None:
        self._device, self._c, self._out = device, sums, out
        self._rows = 8 if device.wide == 16 else 4
        self._program = device.program(
            "winograd", ROWS=self._rows, VECTORS=VECTORS, STEP=device.wide, OUT=out
        )

    def _groups(self) -> int:
        return -(-self._c.k // (VECTORS * self._device.wide))

    def _packed(self) -> int:
        columns = VECTORS * self._device.wide
        return _round_up((self._out + 2) ** 2 * self._groups() * self._c.c * columns, 128)

    def _many(self, images: int) -> tuple[int, int]:
        """Tiles of a unit, and its values of scratch."""
        c, wide = self._c, self._device.wide
        points = (self._out + 2) ** 2
        channels = -(-c.c // wide) * wide + self._groups() * VECTORS * wide
        tiles = images * -(-c.p // self._out) * -(-c.q // self._out)
        many = max(LEAST, WANTED // (points * channels))
        units = _round_up(-(-tiles // many), self._device.units)  # a whole number of turns
        many = _round_up(-(-tiles // units), self._rows)
        return many, points * (channels * many + 2 * wide)

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        return self._packed() + 2 * self._device.units * max(self._many(n)[1] for n in (1, images))

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
            (self._groups(), -(-c.c // wide)), scratch, weight, c.k, c.c, c.out_step, c.in_step,
            *c.first_tap, *c.tap_step, c.tap_row, group=(1, 1),
        )  # fmt: skip
        many, item = self._many(images)
        tiles = images * -(-c.p // self._out) * -(-c.q // self._out)
        items = min(-(-tiles // many), 2 * self._device.units)
        self._program.winograd(
            items, y, x, scratch, bias or scratch, scratch.part(packed, packed + items * item), images, c.c, c.h, c.w,
            c.k, c.p, c.q, *c.padding, many, int(bias is not None), int(rectify), item, group=1,
        )  # fmt: skip


class WinogradFilter:
    """The gradient by the weights on one device, `out` x `out` values of dy at a time."""

    def __init__(self, device: Device, geometry: Geometry, out: int) -> None:
        self._device, self._g, self._out = device, geometry, out
        self._rows = 8 if device.wide == 16 else 4
        self._program = device.program("winograd_filter", ROWS=self._rows, VECTORS=VECTORS, STEP=1, OUT=out)
        wide, points = device.wide, (out + 2) ** 2
        self._groups, self._blocks = -(-geometry.k // (VECTORS * wide)), -(-geometry.c // wide)
        self._sums = points * (self._groups * self._blocks * VECTORS * wide * wide + wide)
        # Shares of the tiles need no work twice, but sums of their own; shares of the channels transform x twice.
        self._tile_parts = max(1, min(2 * device.units, MOST_SUMS // self._sums))
        self._out_parts = min(self._groups, -(-device.units // self._tile_parts))

    def _many(self, images: int) -> tuple[int, int]:
        """Tiles that a work-item has in hand, and its values of scratch."""
        g, wide, points = self._g, self._device.wide, (self._out + 2) ** 2
        channels = self._blocks * wide + -(-self._groups // self._out_parts) * VECTORS * wide
        tiles = -(-images * -(-g.p // self._out) * -(-g.q // self._out) // self._tile_parts)
        many = max(LEAST, WANTED // (points * channels), min(256, self._sums // 2**14))
        many = -(-tiles // -(-tiles // many))
        return many, points * (channels * many + 2 * wide)

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for that many images."""
        item = max(self._many(n)[1] for n in (1, images))
        return _round_up(self._tile_parts * self._sums, 128) + self._tile_parts * self._out_parts * item

    def __call__(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, images: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, plus what is there if `accumulate`."""
        g = self._g
        many, item = self._many(images)
        start = _round_up(self._tile_parts * self._sums, 128)
        parts = self._tile_parts * self._out_parts
        self._program.winograd_filter(
            parts, scratch, dy, x, scratch.part(start, start + parts * item), images, g.c, g.h, g.w, g.k, g.p, g.q,
            *g.padding, many, self._tile_parts, self._out_parts, item, group=1,
        )  # fmt: skip
        self._program.finish(
            (self._groups, self._blocks),
            dweight,
            scratch,
            g.c,
            g.k,
            self._tile_parts,
            int(accumulate),
            group=(1, 1),
        )


MOST_SUMS = 1 << 23
"""Values of transformed sums that shares of the tiles may keep in all: 32 MiB."""


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
