"""Images from a host to a device, normalised there, so that bytes and not floats travel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import parts
from mpitrain.layers.flat import split
from mpitrain.layers.layer import Shape, size
from mpitrain.runtime.ahead import Ahead, InTurn
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Launch


class Images:
    """y = (x / 255 - mean) / std per channel for uint8 images; float32 images take mean and std as
    they are."""

    def __init__(self, device: Engine, shape: Shape, capacity: int) -> None:
        self.device, self.shape = device, shape
        self.channels, self.pixels = shape[0], size(shape[1:])
        self._raw = {kind: device.empty((0,), kind) for kind in (np.uint8, np.float32)}
        self._capacity = capacity
        self._launches: dict[tuple[Array, Array, int], Launch] = {}
        self._ahead: dict[Any, Ahead] = {}
        self._pinned: dict[Any, InTurn] = {}
        self._normal = device.empty((2 * self.channels,))

    def normalise(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Set mean and std (C,) of pixels in [0, 1] (uint8), or of values as they are (float32)."""
        self._mean, self._std = mean.astype(np.float64), std.astype(np.float64)
        self._unit = 0.0

    def bring(self, images: NDArray[Any]) -> None:
        """Set the images of a `load` to come on their way, while the device computes; instead of
        those that were brought before and not loaded."""
        if self.device.shares_memory or not len(images):
            return
        kind = images.dtype.type
        if kind not in self._ahead:
            self._ahead[kind] = Ahead(self.device, self._nbytes(images))
        self._ahead[kind].bring(images)

    def load(self, y: Array, images: NDArray[Any]) -> None:
        """Fill y, in blocks for N images, from images (n, C, H, W), n <= N, uint8 or float32."""
        kind: Any = np.uint8 if images.dtype == np.uint8 else np.float32
        brought = self._ahead[kind].take(images) if kind in self._ahead else None
        raw = self._raw[kind] if brought is None else brought
        if raw.size == 0:
            raw = self._raw[kind] = self.device.empty((self._capacity * size(self.shape),), kind)
        unit = 255.0 if kind is np.uint8 else 1.0
        if unit != self._unit:
            normal = np.stack([1 / (unit * self._std), -self._mean / self._std], axis=1)
            self._normal.write(normal.astype(np.float32).ravel())
            self._unit = unit
        if brought is None:
            images = np.ascontiguousarray(images)
            raw.send(images if self.device.shares_memory else self._in_turn(images))
        launch = self._launches.get((y, raw, len(images)))
        if launch is None:
            launch = self._launches[y, raw, len(images)] = self._prepare(y, raw, kind, len(images))
        launch()

    def _in_turn(self, images: NDArray[Any]) -> NDArray[Any]:
        """A copy in pinned memory."""
        kind = images.dtype.type
        if kind not in self._pinned:
            self._pinned[kind] = InTurn(self.device, self._nbytes(images))
        return self._pinned[kind].copy(images)

    def _nbytes(self, images: NDArray[Any]) -> int:
        """Of as many such images as a run has at most."""
        return self._capacity * size(self.shape) * images.itemsize

    def _prepare(self, y: Array, raw: Array, kind: Any, images: int) -> Launch:
        items, chunk = split(self.device, self.pixels)
        block = self.device.format.block_of(self.channels)
        facts = self.device.format.numbers(self.shape).definitions
        pixel = "uchar" if kind is np.uint8 else "float"
        program = self.device.program("images", PIXEL=pixel, BLOCK=block, **facts)
        return program.images.prepare(
            (items, images * parts(self.channels, block)),
            y, raw, self._normal, self.channels, self.pixels, chunk,
        )  # fmt: skip
