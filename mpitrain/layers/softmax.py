"""Softmax and cross-entropy in one: the loss of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from mpitrain.engine.engine import Engine
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.runtime.array import Array


class SoftmaxCrossEntropy(Layer):
    """y = log(sum of exp(x)) - x[label], one loss an image.  dx = exp(x) / sum - (c == label), of
    the sum of the losses.

    x (N, classes) are the scores, y (N,); `labels` int32 (N,) is filled by the graph. Backward does
    not read dy.
    """

    labels: Array
    probabilities: Array

    def output_shape(self, *shapes: Shape) -> Shape:
        classes_of(shapes[0])
        return ()

    def memory(self, images: int, *shapes: Shape) -> dict[str, tuple[Shape, DTypeLike]]:
        return {
            "probabilities": ((images, classes_of(shapes[0])), np.float32),
            "labels": ((images,), np.int32),
        }

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.kernels = device.program("softmax")
        self.classes = classes_of(shapes[0])

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        group = self.device.group
        self.kernels.softmax_forward(
            run.images * group, y, self.probabilities, x[0], self.labels, self.classes, group=group
        )

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is None:
            return
        group = self.device.group
        self.kernels.softmax_backward(
            run.images * group, dx[0], self.probabilities, self.labels, self.classes, group=group
        )


def classes_of(shape: Shape) -> int:
    """How many classes scores of this shape are for. Raises UserError if they are not one row an
    image."""
    if len(shape) != 1:
        raise UserError(
            f"a loss takes one score per class, shape (classes,), got {shape}; flatten first"
        )
    return shape[0]
