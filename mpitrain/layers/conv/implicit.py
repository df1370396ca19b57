"""Convolution as matrix products whose right-hand side is read from the images where they lie (implicit GEMM).

forward          y  (K, n P Q)  =  weight (K, C R S)       . columns of x (C R S, n P Q)
backward data    dx (C, n H W)  =  weight (C, K R S)       . dy gathered (K R S, n H W)
backward filter  dweight (K, C R S)  =  dy (K, n P Q)      . columns of x, transposed (n P Q, C R S)

It takes every stride, padding, filter size and number of groups; sums have a fixed order and need no atomics.
"""

from __future__ import annotations

from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.gemm import DATA, FILTER, IMAGES, Bias, Gemm, Left, Result, Right

PACKED_LIMIT = 1 << 23
"""Values of dy that backward filter packs at once (32 MiB): more images than that go in several products that add up."""


class ImplicitGemm:
    """The algorithm for one layer on one device. Arrays are (N, C, H, W) and the like; n says how many images count."""

    def __init__(self, device: Device, geometry: Geometry) -> None:
        self._gemm = Gemm(device)
        self._g = geometry.flattened()

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for any of the three passes."""
        g = self._g
        filter_depth = self._images_at_once(images) * g.p * g.q
        return max(
            self._gemm.scratch(g.k, g.c * g.r * g.s),
            self._gemm.scratch(g.c, g.k * g.r * g.s),
            self._gemm.scratch(g.k, filter_depth),
        )

    def forward(self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array) -> None:
        """y = weight * x + bias."""
        g = self._g
        depth, pixels = g.c * g.r * g.s, g.p * g.q
        for group in range(g.groups):
            self._gemm(
                Result(y, pixels, pixels, g.y_image, start=group * g.k * pixels),
                Left(weight, depth, 1, depth, start=group * g.k * depth),
                Right(x, IMAGES, self._integers(g.x_image), start=group * g.c * g.h * g.w),
                g.k,
                n * pixels,
                depth,
                scratch,
                bias=Bias(bias, "row", start=group * g.k) if bias else None,
            )

    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        """dx = weight, transposed, * dy."""
        g = self._g
        filter_size, pixels = g.r * g.s, g.h * g.w
        for group in range(g.groups):
            self._gemm(
                Result(dx, pixels, pixels, g.x_image, start=group * g.c * pixels),
                Left(
                    weight,
                    filter_size,
                    1,
                    filter_size,
                    g.c * filter_size,
                    start=group * g.k * g.c * filter_size,
                ),
                Right(dy, DATA, self._integers(g.y_image), start=group * g.k * g.p * g.q),
                g.c,
                n * pixels,
                g.k * filter_size,
                scratch,
            )

    def backward_filter(
        self, dweight: Array, dy: Array, x: Array, n: int, accumulate: bool, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, added to what is there when `accumulate`."""
        g = self._g
        depth, pixels, step = g.c * g.r * g.s, g.p * g.q, self._images_at_once(n)
        for group in range(g.groups):
            for first in range(0, n, step):
                self._gemm(
                    Result(dweight, depth, depth, start=group * g.k * depth),
                    Left(dy, pixels, 1, pixels, g.y_image, start=first * g.y_image + group * g.k * pixels),
                    Right(
                        x,
                        FILTER,
                        self._integers(g.x_image),
                        start=first * g.x_image + group * g.c * g.h * g.w,
                    ),
                    g.k,
                    depth,
                    min(step, n - first) * pixels,
                    scratch,
                    accumulate=accumulate or first > 0,
                )

    def _images_at_once(self, images: int) -> int:
        return max(1, min(images, PACKED_LIMIT // (self._g.k * self._g.p * self._g.q)))

    def _integers(self, image: int) -> tuple[int, ...]:
        g = self._g
        return (g.h, g.w, g.r, g.s, g.p, g.q, *g.stride, *g.padding, image)
