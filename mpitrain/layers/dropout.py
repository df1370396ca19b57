"""Dropout whose draws depend on nothing but the step, the layer, and the value's place in the
global batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mpitrain.engine.engine import Engine
from mpitrain.job.errors import UserError
from mpitrain.layers.flat import copy, split
from mpitrain.layers.layer import Layer, Pass, Shape, size
from mpitrain.runtime.array import Array
from mpitrain.runtime.recording import Varying


class Dropout(Layer):
    """y = x / (1 - p) with probability 1 - p, else 0; the identity when not training.  dx is the
    same function of dy.

    The draw is a hash of (run.seed, the layer's name, the image's place run.first + i, the
    element's number). It is made again on the way back, so no mask is kept, and a batch gets the
    same masks however it is split. Source: Srivastava et al., JMLR 2014, "inverted" so that
    evaluation needs no scaling.
    """

    in_place = True

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise UserError(f"p: expected a probability from 0 to below 1, got {p!r}")
        self.p = p

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return shape

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.numbers = device.format.numbers(shapes[0])
        block = device.format.block_of(shapes[0][0])
        self.kernels = device.program("dropout", BLOCK=block, **self.numbers.definitions)
        self._first, self._keys = (
            Varying(np.uint32(0)),
            (Varying(np.uint32(0)), Varying(np.uint32(0))),
        )
        self.size = device.format.stored_size(shapes[0])
        self.plane = size(shapes[0][1:]) if len(shapes[0]) == 3 and device.format.block > 1 else 0

    def vary(self, run: Pass) -> None:
        self._first.value = np.uint32(run.first)
        for key, value in zip(self._keys, _keys(run.seed, self.name), strict=True):
            key.value = value

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        self._apply(run, y, x[0])

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is not None:
            self._apply(run, dx[0], dy)

    def _apply(self, run: Pass, y: Array, x: Array) -> None:
        """Both ways: y from x, or dx from dy."""
        if not run.training or self.p == 0:
            copy(y, x, run.images * self.size)
            return
        self.vary(run)
        items, chunk = split(self.device, self.size, self.numbers)
        threshold = min(round(self.p * 2**32), 2**32 - 1)
        self.kernels.dropout(
            (items, run.images), y, x, self.size, chunk, self._first, *self._keys,
            np.uint32(threshold), 1 / (1 - self.p), self.plane, group=(self.device.group, 1),
        )  # fmt: skip


def _keys(seed: int, name: str) -> tuple[np.uint32, np.uint32]:
    """64 bits that differ from step to step and from layer to layer, the same on every machine."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    first, second = np.frombuffer(digest, "<u4")
    return np.uint32(first), np.uint32(second)
