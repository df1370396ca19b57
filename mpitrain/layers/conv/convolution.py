"""Two-dimensional convolution: the layer. How it is computed is an algorithm's business."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.layers.bias import BiasGradient
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.implicit import ImplicitGemm
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, pair
from mpitrain.report import UserError
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


class Convolution(Layer):
    """y[n][k][p][q] = bias[k] + sum over c, r, s of weight[k][c][r][s] x[n][c][p * stride + r - padding][q * stride + s - padding].

    weight (channels, C / groups, R, S) as in torchvision. With groups, the k-th part of the output channels sees only the k-th part
    of the input channels. Backward: dx is the sum over the same terms of weight dy, dweight that of x dy, dbias that of dy.
    """

    keeps = ("x",)
    weight: Array
    dweight: Array
    bias: Array
    dbias: Array

    def __init__(
        self,
        channels: int,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self.channels, self.kernel, self.stride, self.padding, self.groups = (
            channels,
            kernel,
            stride,
            padding,
            groups,
        )
        self.has_bias = bias
        if (
            min(channels, groups, *pair(kernel, "kernel"), *pair(stride, "stride")) < 1
            or min(pair(padding, "padding")) < 0
        ):
            raise UserError(
                "convolution: channels, kernel, stride and groups must be at least 1, padding at least 0"
            )
        if channels % groups:
            raise UserError(f"convolution: {channels} channels cannot be divided into {groups} groups")

    def geometry(self, shape: Shape) -> Geometry:
        """What the algorithms need to know, for an input of this shape. Raises UserError if the filter does not fit it."""
        if len(shape) != 3:
            raise UserError(f"takes images (C, H, W), got {shape}")
        c, h, w = shape
        (r, s), stride, padding = (
            pair(self.kernel, "kernel"),
            pair(self.stride, "stride"),
            pair(self.padding, "padding"),
        )
        if c % self.groups:
            raise UserError(f"input has {c} channels, which {self.groups} groups cannot share")
        p = (h + 2 * padding[0] - r) // stride[0] + 1
        q = (w + 2 * padding[1] - s) // stride[1] + 1
        if p < 1 or q < 1:
            raise UserError(
                f"a {r}x{s} filter does not fit into an input of {h}x{w} with padding {padding[0]}x{padding[1]}"
            )
        groups = self.groups
        return Geometry(c // groups, h, w, self.channels // groups, r, s, p, q, stride, padding, groups)

    def output_shape(self, *shapes: Shape) -> Shape:
        g = self.geometry(shapes[0])
        return (self.channels, g.p, g.q)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        g = self.geometry(shapes[0])
        fan = g.c * g.r * g.s
        weight = Parameter((self.channels, g.c, g.r, g.s), "he", fan)
        return (
            {"weight": weight, "bias": Parameter((self.channels,), "zeros")}
            if self.has_bias
            else {"weight": weight}
        )

    def flops(self, *shapes: Shape) -> int:
        return self.geometry(shapes[0]).flops

    def workspace(self, images: int, *shapes: Shape) -> int:
        return self._algorithm.workspace(images)

    def build(self, device: Device, *shapes: Shape) -> None:
        g = self.geometry(shapes[0])
        self._algorithm = ImplicitGemm(device, g)
        self._bias_gradient = BiasGradient(device, self.channels, g.p * g.q)

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        bias = self.bias if self.has_bias else None
        self._algorithm.forward(y, x[0], self.weight, bias, run.images, self.scratch)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        self._algorithm.backward_filter(self.dweight, dy, x[0], run.images, run.accumulate, self.scratch)
        if self.has_bias:
            self._bias_gradient(self.dbias, dy, run.images, run.accumulate)
        if dx[0] is not None:
            self._algorithm.backward_data(dx[0], dy, self.weight, run.images, self.scratch)
