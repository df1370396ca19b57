"""Squared distance from the label's unit vector: a loss with a gradient that is easy to follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from mpitrain.engine.engine import Engine
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.layers.softmax import classes_of
from mpitrain.runtime.array import Array


class SquaredLoss(Layer):
    """y = 1/2 sum over c of (x[c] - (c == label))^2, one loss an image.  dx = x - (c == label), of
    the sum of the losses.

    x (N, classes) are the scores, y (N,); `labels` int32 (N,) is filled by the graph. Backward does
    not read dy.
    """

    keeps = ("x",)
    labels: Array

    def output_shape(self, *shapes: Shape) -> Shape:
        classes_of(shapes[0])
        return ()

    def memory(self, images: int, *shapes: Shape) -> dict[str, tuple[Shape, DTypeLike]]:
        return {"labels": ((images,), np.int32)}

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.kernels = device.program("squared")
        self.classes = classes_of(shapes[0])

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        group = self.device.group
        self.kernels.squared_forward(
            run.images * group, y, x[0], self.labels, self.classes, group=group
        )

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is None:
            return
        group = self.device.group
        self.kernels.squared_backward(
            run.images * group, dx[0], x[0], self.labels, self.classes, group=group
        )
