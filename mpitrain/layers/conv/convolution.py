"""Two-dimensional convolution: the layer. How it is computed is an algorithm's business."""

from __future__ import annotations

from collections.abc import Sequence

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.job.errors import UserError
from mpitrain.layers.bias import BiasGradient
from mpitrain.layers.conv.algorithm import PASSES
from mpitrain.layers.conv.choice import choose
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.packed_weights import Packing
from mpitrain.layers.initial import check, tensors
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, pair
from mpitrain.layers.relu import Relu
from mpitrain.runtime.array import Array


class Convolution(Layer):
    """y[n][k][p][q] = bias[k] + sum over c, r, s of weight[k][c][r][s] x[n][c][p * stride + r -
    padding][q * stride + s - padding].

    weight (channels, C / groups, R, S) as in torchvision. With groups, the k-th part of the output
    channels sees only the k-th part of the input channels. Backward: dx is the sum over the same
    terms of weight dy, dweight that of x dy, dbias that of dy.
    """

    keeps = ("x",)
    keeps_rectified = ("y",)
    can_be_gated = True
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
        initial: str = "he",
    ) -> None:
        """initial: one of those in layers/initial.py."""
        self.channels, self.kernel, self.stride, self.padding, self.groups = (
            channels,
            kernel,
            stride,
            padding,
            groups,
        )
        self.has_bias, self.initial = bias, check(initial)
        self.forced: dict[str, str] = {}
        """Pass -> the algorithm that has to compute it, for tests and comparisons."""
        if (
            min(channels, groups, *pair(kernel, "kernel"), *pair(stride, "stride")) < 1
            or min(pair(padding, "padding")) < 0
        ):
            raise UserError(
                "convolution: channels, kernel, stride and groups must be at least 1, padding at "
                "least 0"
            )
        if channels % groups:
            raise UserError(
                f"convolution: {channels} channels cannot be divided into {groups} groups"
            )

    def geometry(self, shape: Shape) -> Geometry:
        """What the algorithms need to know, for an input of this shape. Raises UserError if the
        filter does not fit it."""
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
                f"a {r}x{s} filter does not fit into an input of {h}x{w} with padding "
                f"{padding[0]}x{padding[1]}"
            )
        groups = self.groups
        return Geometry(
            c // groups, h, w, self.channels // groups, r, s, p, q, stride, padding, groups
        )

    def output_shape(self, *shapes: Shape) -> Shape:
        g = self.geometry(shapes[0])
        return (self.channels, g.p, g.q)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        g = self.geometry(shapes[0])
        return tensors((self.channels, g.c, g.r, g.s), self.initial, self.has_bias)

    def flops(self, *shapes: Shape) -> int:
        return self.geometry(shapes[0]).flops

    def can_rectify(self, fmt: Format, *shapes: Shape) -> bool:
        return fmt.block > 1

    def workspace(self, images: int, *shapes: Shape) -> int:
        return max(
            self._bias_gradient.workspace,
            *(each.workspace(images) for each in self._passes.values()),
        )

    def build(self, device: Engine, *shapes: Shape) -> None:
        g = self.geometry(shapes[0])
        self._passes = {
            name: choose(device, g, name, self.capacity, self.forced) for name in PASSES
        }
        self._relu = Relu()
        self._relu.build(device, (self.channels, g.p, g.q))
        self._bias_gradient = BiasGradient(device, self.channels, g.p * g.q)

    @property
    def algorithms(self) -> dict[str, str]:
        """Pass -> the name of the algorithm that computes it."""
        return {name: each.name for name, each in self._passes.items()}

    def packings(self) -> Sequence[tuple[Packing, str]]:
        return [
            (each, "bias" if self.has_bias and name == "forward" else "")
            for name, algorithm in self._passes.items()
            for each in algorithm.packings
        ]

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        bias = self.bias if self.has_bias else None
        algorithm = self._passes["forward"]
        algorithm.run(y, x[0], self.weight, bias, self.rectify, run.images, self.scratch)
        if self.rectify and not algorithm.rectifies:
            self._relu.forward(run, y, y)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        rectified = y if self.rectify and not self.gated else None
        if self.has_bias or rectified:
            self._bias_gradient(
                self.dbias if self.has_bias else None, dy, rectified, run.images, run.accumulate,
                self.scratch,
            )  # fmt: skip
        self._passes["backward filter"].run(
            self.dweight, dy, x[0], run.accumulate, run.images, self.scratch
        )
        if dx[0] is not None:
            self.backward_data(run, dx[0], dy)

    def backward_data(self, run: Pass, dx: Array, dy: Array) -> None:
        """Fill dx alone, from a dy that has passed the ReLU if there is one."""
        self._passes["backward data"].run(dx, dy, self.weight, run.images, self.scratch)
