"""The end of a residual block in one: a batch normalisation, the sum with the shortcut, and the
ReLU."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.job.errors import UserError
from mpitrain.layers.batchnorm import BatchNorm
from mpitrain.layers.layer import Pass, Shape
from mpitrain.runtime.array import Array


class BatchNormAdd(BatchNorm):
    """y = x[0] + the batch normalisation of x[1], or the ReLU of that; images in blocks of channels
    only.

    dx[0] is dy (where y > 0), and may be its very memory; if nobody wants dx[0], dy is overwritten
    with it. dx[1] is the batch normalisation's for that gradient. Networks do not name it: the
    graph makes it of a BatchNorm and the Add that reads it.
    """

    inputs = 2
    in_place = True
    keeps = ("x1",)
    keeps_rectified = ("y",)
    residual = 1
    can_cut = False

    @classmethod
    def of(cls, norm: BatchNorm) -> BatchNormAdd:
        """One that normalises as `norm` does."""
        return cls(norm.momentum, norm.epsilon)

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if first != second:
            raise UserError(f"adds two values of one shape, got {first} and {second}")
        return super().output_shape(second)

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        self._forward_blocks(run, y, x[1], x[0])

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        passed = dx[0] or dy
        partial, count = self._backward_sums(run, dy, x[1], y if self.rectify else dy, passed)
        self._backward_apply(run, dx[1], passed, x[1], False, partial, count)
