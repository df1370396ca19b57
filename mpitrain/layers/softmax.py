"""Softmax and cross-entropy in one: the loss of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from mpitrain.engine.engine import Engine
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.runtime.array import Array


@dataclass(frozen=True)
class SoftLabels:
    """What classes an image counts for beside its label: t[c] = (1 - smoothing) * (share * (c ==
    label) + (1 - share) * (c == other)) + smoothing / classes.

    Sources: C. Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR
    2016, section 7; H. Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018.
    """

    smoothing: float
    others: Array
    """int32 (N,)."""
    shares: Array
    """float32 (N,), 1 where an image is not blended with another."""


class SoftmaxCrossEntropy(Layer):
    """y = log(sum of exp(x)) - x[label], one loss an image.  dx = exp(x) / sum - (c == label), of
    the sum of the losses.

    After `soften`, training has y = log(sum of exp(x)) - sum of t[c] x[c] and dx = exp(x) / sum -
    t[c], with the targets t of SoftLabels.

    x (N, classes) are the scores, y (N,); `labels` int32 (N,) is filled by the graph. Backward does
    not read dy.
    """

    labels: Array
    probabilities: Array
    _soft: SoftLabels | None = None

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

    def soften(self, smoothing: float, capacity: int) -> SoftLabels:
        """Train with soft labels from now on; they are for as many images as `capacity`."""
        others = self.device.zeros((capacity,), np.int32)
        shares = self.device.upload(np.ones(capacity, np.float32))
        self._soft = SoftLabels(smoothing, others, shares)
        self._soft_kernels = self.device.program("softmax_soft")
        return self._soft

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        group, soft = self.device.group, self._soft
        if soft and run.training:
            self._soft_kernels.softmax_soft_forward(
                run.images * group, y, self.probabilities, x[0], self.labels, soft.others,
                soft.shares, soft.smoothing, self.classes, group=group,
            )  # fmt: skip
            return
        self.kernels.softmax_forward(
            run.images * group, y, self.probabilities, x[0], self.labels, self.classes, group=group
        )

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is None:
            return
        group, soft = self.device.group, self._soft
        if soft:
            self._soft_kernels.softmax_soft_backward(
                run.images * group, dx[0], self.probabilities, self.labels, soft.others,
                soft.shares, soft.smoothing, self.classes, group=group,
            )  # fmt: skip
            return
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
