"""The sum that a convolution's forward pass and its gradient by x have in common, as numbers that
algorithms take."""

from __future__ import annotations

from dataclasses import dataclass

from mpitrain.job.cut import parts
from mpitrain.layers.conv.geometry import Geometry


@dataclass(frozen=True)
class Correlation:
    """y[k][p][q] = sum over c, r, s of weight(k, c, r, s) x[c][p * U + r - pad_h][q * V + s -
    pad_w], x being zero outside H x W.

    weight(k, c, r, s) is weight[k * out_step + c * in_step + tap], where tap = (first_tap + (r, s)
    * tap_step) in rows of `tap_row`. y's pixel (p, q) lies at first_pixel + (p, q) * pixel_step of
    an image of `size`; others are not touched.
    """

    c: int
    h: int
    w: int
    k: int
    p: int
    q: int
    r: int
    s: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    """May be negative: the first tap lies inside."""
    out_step: int
    in_step: int
    first_tap: tuple[int, int]
    tap_step: tuple[int, int]
    tap_row: int
    size: tuple[int, int]
    first_pixel: tuple[int, int] = (0, 0)
    pixel_step: tuple[int, int] = (1, 1)
    groups: int = 1
    """So many sums of this kind; x has c * groups channels in all, y k * groups."""

    @property
    def group_step(self) -> int:
        """Weights from one group's to the next one's."""
        return max(self.k * self.out_step, self.c * self.in_step)

    @property
    def within(self) -> bool:
        """Whether it never looks outside x."""
        (u, v), (pad_h, pad_w) = self.stride, self.padding
        bottom, right = (self.p - 1) * u + self.r - 1 - pad_h, (self.q - 1) * v + self.s - 1 - pad_w
        return pad_h <= 0 and pad_w <= 0 and bottom < self.h and right < self.w

    @property
    def flops(self) -> int:
        """Multiplications and additions for one image."""
        return 2 * self.groups * self.k * self.c * self.r * self.s * self.p * self.q


def forward(g: Geometry) -> Correlation:
    """The forward pass: x (C, H, W) to y (K, P, Q)."""
    g = g.flattened()
    return Correlation(
        g.c, g.h, g.w, g.k, g.p, g.q, g.r, g.s, g.stride, g.padding, g.c * g.r * g.s, g.r * g.s, (0,
        0), (1, 1), g.s, (g.p, g.q), groups=g.groups
    )  # fmt: skip


def backward_data(g: Geometry) -> list[Correlation]:
    """The gradient by x: dy (K, P, Q) to dx (C, H, W), one sum for each place (a, b) of a pixel
    between the strides.

    dx[U i + a] takes the taps r = r0 + U j with r0 = (a + pad) mod U, from dy[i + (a + pad) // U -
    j]. Where no tap meets a place (a 1x1 filter with a stride), dx is zero and no sum is listed.
    """
    g = g.flattened()
    rows = [_one_axis(g.h, g.r, g.stride[0], g.padding[0], a) for a in range(min(g.stride[0], g.h))]
    columns = [
        _one_axis(g.w, g.s, g.stride[1], g.padding[1], b) for b in range(min(g.stride[1], g.w))
    ]
    sums = []
    for a, (places_h, taps_h, last_r, pad_h) in enumerate(rows):
        for b, (places_w, taps_w, last_s, pad_w) in enumerate(columns):
            if taps_h and taps_w:
                backwards = (-g.stride[0], -g.stride[1])
                sums.append(
                    Correlation( g.k, g.p, g.q, g.c, places_h, places_w, taps_h, taps_w, (1, 1),
                    (pad_h, pad_w), g.r * g.s, g.c * g.r * g.s, (last_r, last_s), backwards, g.s,
                    (g.h, g.w), (a, b), g.stride, g.groups)
                )  # fmt: skip
    return sums


def _one_axis(
    extent: int, filter_size: int, stride: int, padding: int, a: int
) -> tuple[int, int, int, int]:
    """(pixels, taps, number of the last tap, padding) for the pixels a, a + stride, ... of an axis
    of dx."""
    first, base = (a + padding) % stride, (a + padding) // stride
    taps = max(0, parts(filter_size - first, stride))
    return parts(extent - a, stride), taps, first + stride * (taps - 1), taps - 1 - base
