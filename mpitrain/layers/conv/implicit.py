"""Convolution as matrix products whose right-hand side is read from the images where they lie
(implicit GEMM).

forward          y  (K, n P Q)  =  weight (K, C R S)       . columns of x (C R S, n P Q)
backward data    dx (C, n H W)  =  weight (C, K R S)       . dy gathered (K R S, n H W)
backward filter  dweight (K, C R S)  =  dy (K, n P Q)      . columns of x, transposed (n P Q, C R S)

It takes every stride, padding, filter size and number of groups; sums have a fixed order and need
no atomics. It reads planes: on a device with blocks of channels, a few images at a time are copied
to planes and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from mpitrain.engine.engine import Engine
from mpitrain.engine.gemm import DATA, FILTER, IMAGES, Bias, Left, Result, Right
from mpitrain.job.cut import round_up
from mpitrain.layers.blocks import Planes
from mpitrain.layers.conv.algorithm import Algorithm, Family, PassName
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array

PACKED_LIMIT = 1 << 23
"""Values of dy that backward filter packs at once (32 MiB): more images than that go in several
products that add up."""

COPIED_LIMIT = 1 << 21
"""Values of x and y that are in planes at once (8 MiB)."""


class ImplicitGemm:
    """The algorithm for one layer on one device; n says how many images count."""

    def __init__(self, device: Engine, geometry: Geometry) -> None:
        self._gemm = device.gemm()
        self._g = g = geometry.flattened()
        self._x_planes = Planes(device, g.groups * g.c, g.h * g.w)
        self._y_planes = Planes(device, g.groups * g.k, g.p * g.q)
        self._copies = device.format.block > 1

    def workspace(self, images: int) -> int:
        """Float32 values of scratch for any of the three passes."""
        g = self._g
        filter_depth = self._images_at_once(images) * g.p * g.q
        products = max(
            self._gemm.scratch(g.k, g.c * g.r * g.s),
            self._gemm.scratch(g.c, g.k * g.r * g.s),
            self._gemm.scratch(g.k, filter_depth),
        )
        if not self._copies:
            return products
        return sum(self._plane_sizes(self._few(images))) + products

    def forward(
        self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array
    ) -> None:
        """y = weight * x + bias."""
        for first, few, planes_x, planes_y, rest in self._pieces(x, y, n, scratch):
            if self._copies:
                self._x_planes.read(planes_x, x, first, few)
            self._forward(planes_y, planes_x, weight, bias, few, rest)
            if self._copies:
                self._y_planes.write(y, planes_y, first, few)

    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        """dx = weight, transposed, * dy."""
        for first, few, planes_x, planes_y, rest in self._pieces(dx, dy, n, scratch):
            if self._copies:
                self._y_planes.read(planes_y, dy, first, few)
            self._backward_data(planes_x, planes_y, weight, few, rest)
            if self._copies:
                self._x_planes.write(dx, planes_x, first, few)

    def backward_filter(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, n: int, scratch: Array
    ) -> None:
        """dweight = sum over images and pixels of dy * x, added to what is there when
        `accumulate`."""
        for first, few, planes_x, planes_y, rest in self._pieces(x, dy, n, scratch):
            if self._copies:
                self._x_planes.read(planes_x, x, first, few)
                self._y_planes.read(planes_y, dy, first, few)
            self._backward_filter(dweight, planes_y, planes_x, few, accumulate or first > 0, rest)

    def _pieces(
        self, x: Array, y: Array, n: int, scratch: Array
    ) -> Iterator[tuple[int, int, Array, Array, Array]]:
        """(first image, images, x and y in planes, the rest of scratch): all at once where x and y
        are planes."""
        if not self._copies:
            yield 0, n, x, y, scratch
            return
        few = self._few(n)
        size_x, size_y = self._plane_sizes(few)
        for first in range(0, n, few):
            yield (
                first, min(few, n - first), scratch.part(0, size_x), scratch.part(size_x, size_x +
                size_y), scratch.part(size_x + size_y, scratch.size),
            )  # fmt: skip

    def _few(self, images: int) -> int:
        """Images to copy at a time: some MiB, so that the copies stay in a cache."""
        return max(1, min(images, COPIED_LIMIT // (self._g.x_image + self._g.y_image)))

    def _plane_sizes(self, few: int) -> tuple[int, int]:
        x, y = (round_up(few * image, 128) for image in (self._g.x_image, self._g.y_image))
        return x, y

    def _forward(
        self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array
    ) -> None:
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

    def _backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
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

    def _backward_filter(
        self, dweight: Array, dy: Array, x: Array, n: int, accumulate: bool, scratch: Array
    ) -> None:
        g = self._g
        depth, pixels, step = g.c * g.r * g.s, g.p * g.q, self._images_at_once(n)
        for group in range(g.groups):
            for first in range(0, n, step):
                self._gemm(
                    Result(dweight, depth, depth, start=group * g.k * depth),
                    Left(
                        dy,
                        pixels,
                        1,
                        pixels,
                        g.y_image,
                        start=first * g.y_image + group * g.k * pixels,
                    ),
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


class ImplicitFamily(Family):
    """The one algorithm of this file."""

    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        return ("implicit",)

    def make(self, name: str, device: Engine, g: Geometry, what: PassName) -> Algorithm:
        implicit = ImplicitGemm(device, g)

        def forward(
            y: Array,
            x: Array,
            weight: Array,
            bias: Array | None,
            rectify: bool,
            images: int,
            scratch: Array,
        ) -> None:
            implicit.forward(y, x, weight, bias, images, scratch)

        runs: dict[PassName, Callable[..., None]] = {
            "forward": forward,
            "backward data": implicit.backward_data,
            "backward filter": implicit.backward_filter,
        }
        return Algorithm(name, implicit.workspace, runs[what])

    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        """Taken only where nothing else can be."""
        return math.inf
