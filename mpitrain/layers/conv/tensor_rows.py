"""What tensor cores multiply: rows of 128 bytes, in one of three formats.

bf16  64 channels rounded to bfloat16 (8 bits of mantissa)
tf32  32 channels rounded to TF32 (11 bits)
high  32 channels as pairs of bfloat16, x = high + low (16 bits)

Images lie in memory so under the precision of that name; others, and a filter's taps, are written
first by kernels/nvidia/tensor_pack.cl.
"""

from __future__ import annotations

from typing import Literal

from mpitrain.engine.engine import Engine
from mpitrain.engine.gpu import FORMAT
from mpitrain.job.cut import parts, round_up
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program

Format = Literal["bf16", "tf32", "high"]
FORMATS: tuple[Format, ...] = ("bf16", "tf32", "high")
"""In the kernels' order of numbers."""

ROW_FLOATS = 32
"""Float32 values in the place of one row."""
GROUP = 256
"""Work-items of a group that writes rows, or adds up gradients, on any device."""
MOST_TAPS = 128
"""Taps of a filter whose sums fit into local memory."""


def format_of(precision: str) -> Format:
    """The format of a precision; there is none of float32."""
    return FORMATS[FORMATS.index(precision)]


def row_channels(fmt: Format) -> int:
    """Channels in a row."""
    return 64 if fmt == "bf16" else 32


def pack_program(device: Engine, fmt: Format, gather: Geometry | None = None) -> Program:
    """The kernels that write rows of a format; gather: the convolution whose taps are gathered."""
    facts = {"FORMAT": FORMATS.index(fmt)}
    if gather:
        facts |= {"GATHER_C": gather.c, "GATHER_R": gather.r, "GATHER_S": gather.s}
        facts |= {"PIXELS": GROUP}
    return device.program("tensor_pack", **facts)


class ImageRows:
    """The rows of images as they lie on a device, or of a filter's taps gathered from them."""

    def __init__(
        self,
        device: Engine,
        fmt: Format,
        channels: int,
        pixels: int,
        gather: Geometry | None = None,
    ) -> None:
        self._program = pack_program(device, fmt, gather)
        self._pixels, self._gather = pixels, gather
        self.written = device.format.images.rows != fmt or gather is not None
        """Whether they are another array than the images."""
        self._items = row_channels(fmt) // 8
        self.chunks = parts(channels, row_channels(fmt))

    def size(self, images: int) -> int:
        """Float32 values of scratch."""
        rows = images * self.chunks * self._pixels if self.written else 0
        return round_up(rows * ROW_FLOATS, 128)

    def of(self, x: Array, images: int, scratch: Array) -> Array:
        """The rows of x: the beginning of scratch, which is filled, or x itself."""
        if self.written:
            self.write(scratch, x, images)
        return scratch if self.written else x

    def write(self, rows: Array, x: Array, images: int) -> None:
        """Fill `rows` from x."""
        g = self._gather
        if g is None:
            items = images * self.chunks * self._pixels * self._items
            self._program.pack_images(items, rows, x, items, group=GROUP)
            return
        self._program.pack_gathered(
            (self._pixels, images), rows, x, g.h, g.w, g.p, g.q, *g.stride, *g.padding,
            group=(GROUP, 1),
        )  # fmt: skip


def gathered(g: Geometry) -> Geometry | None:
    """The 1x1 convolution of images whose channels are the taps that a pixel meets; None where that
    is not worth it."""
    if g.c > FORMAT.few or g.r * g.s == 1:
        return None
    return Geometry(g.c * g.r * g.s, 1, g.p * g.q, g.k, 1, 1, 1, g.p * g.q, (1, 1), (0, 0), 1)
