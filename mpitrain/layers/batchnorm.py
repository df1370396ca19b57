"""Batch normalisation over the images of a run, or by the running statistics when not training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.job.cut import parts, round_up
from mpitrain.job.errors import UserError
from mpitrain.layers.flat import shares, shares_of
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, size
from mpitrain.layers.relu import ceiling_facts
from mpitrain.runtime.array import Array

VECTORS = 4
"""Vectors of a plane that a work-item of a GPU takes, a group's width apart."""
LAUNCH_BYTES = 2**17
"""What a unit of a GPU reads of a cache in the time of a small launch: 3 us at 40 bytes a ns."""


class BatchNorm(Layer):
    """y = weight * (x - mean) / sqrt(var + epsilon) + bias, each channel (or feature) by itself.

    Training takes mean and var (of the m values themselves, divided by m) from the run's images,
    and moves the running ones towards them by `momentum`, the variance divided by m - 1 as PyTorch
    does; evaluation takes the running ones. Backward is that of training. Source: Ioffe and
    Szegedy, 2015.
    """

    keeps: tuple[str, ...] = ("x",)
    can_cut: ClassVar[bool] = True
    residual: ClassVar[int] = 0
    """Whether a shortcut is added to the result; layers/residual.py."""
    weight: Array
    bias: Array
    dweight: Array
    dbias: Array
    running_mean: Array
    running_var: Array
    mean: Array
    inverse: Array

    def __init__(self, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        if not 0 <= momentum <= 1:
            raise UserError(f"momentum: expected a share from 0 to 1, got {momentum!r}")
        if not epsilon > 0:
            raise UserError(f"epsilon: expected a small number above 0, got {epsilon!r}")
        self.momentum = momentum
        self.epsilon = epsilon

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape:
            raise UserError(
                "normalises (channels, height, width) or (features,), got one number an image"
            )
        return shape

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        channels = shapes[0][:1]
        return {"weight": Parameter(channels, "ones"), "bias": Parameter(channels, "zeros")}

    def statistics(self, *shapes: Shape) -> dict[str, Parameter]:
        channels = shapes[0][:1]
        return {
            "running_mean": Parameter(channels, "zeros"),
            "running_var": Parameter(channels, "ones"),
        }

    def memory(self, images: int, *shapes: Shape) -> dict[str, tuple[Shape, DTypeLike]]:
        """`mean`, and `inverse` = 1 / sqrt(var + epsilon), of the run's images."""
        channels = shapes[0][:1]
        return {"mean": (channels, np.float32), "inverse": (channels, np.float32)}

    def can_rectify(self, fmt: Format, *shapes: Shape) -> bool:
        return len(shapes[0]) == 3 and fmt.block > 1

    def can_repeat(self, fmt: Format, *shapes: Shape) -> bool:
        return self.can_rectify(fmt, *shapes) and not self.residual

    def repeat(self, run: Pass, y: Array, *x: Array) -> None:
        self._apply(run, y, x[0], x[0])

    def workspace(self, images: int, *shapes: Shape) -> int:
        return (2 * self.shares + 2) * self.blocks * self.block + 128 if self.blocked else 0

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.channels = shapes[0][0]
        self.plane = size(shapes[0][1:])
        self.blocked = self.can_rectify(device.format, *shapes)
        self.block = device.format.block_of(self.channels)
        self.blocks = parts(self.channels, self.block)
        self.shares = shares(device, self.blocks)
        self.numbers = device.format.numbers(shapes[0])
        if self.blocked:
            facts = {"RESIDUAL": self.residual, "BLOCK": self.block, "VECTORS": VECTORS}
            self.kernels = device.program(
                "batchnorm_blocks",
                **facts,
                **self.numbers.definitions,
                **ceiling_facts(self.ceiling),
            )
        else:
            self.kernels = device.program("batchnorm")

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        if self.blocked:
            self._forward_blocks(run, y, x[0], x[0])
            return
        group = self.device.group
        items = self.channels * group
        shape = (run.images, self.channels, self.plane)
        if run.training:
            self.kernels.batchnorm_forward(
                items, y, self.mean, self.inverse, self.running_mean, self.running_var, x[0],
                self.weight, self.bias, *shape, float(self.momentum), float(self.epsilon),
                group=group,
            )  # fmt: skip
        else:
            self.kernels.batchnorm_evaluate(
                items, y, x[0], self.weight, self.bias, self.running_mean, self.running_var,
                *shape, float(self.epsilon), group=group,
            )  # fmt: skip

    def _forward_blocks(self, run: Pass, y: Array, x: Array, shortcut: Array) -> None:
        if not run.training:
            self._apply(run, y, x, shortcut)
            return
        partial, count = self._shares(run.images)
        group = self.device.group
        self.kernels.forward_sums(
            (self.blocks * group, count), partial, x, run.images, self.plane, group=(group, 1)
        )
        partial, count = self._added(run, partial, count)
        items, groups = self._planes(run.images)
        self.kernels.forward_apply(
            items, y, self.mean, self.inverse, self.running_mean, self.running_var, partial, x,
            shortcut, self.weight, self.bias, count, run.images, self.channels, self.plane,
            int(self.rectify), float(self.momentum), float(self.epsilon), group=groups,
        )  # fmt: skip

    def _apply(self, run: Pass, y: Array, x: Array, shortcut: Array) -> None:
        mean, spread = (
            (self.mean, self.inverse) if run.training else (self.running_mean, self.running_var)
        )
        items, group = self._planes(run.images)
        self.kernels.apply(
            items, y, x, shortcut, mean, spread, self.weight, self.bias, self.channels, self.plane,
            int(self.rectify), int(not run.training), float(self.epsilon), group=group,
        )  # fmt: skip

    def _planes(self, images: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(work-items, of a group) to pass over images: one a plane on CPUs, one a few vectors of a
        plane on GPUs."""
        if self.device.long_items:
            return (self.blocks, images), (1, 1)
        wide, group = self.numbers.wide or self.device.wide, self.device.group
        return (parts(self.plane * self.block // wide, VECTORS), self.blocks, images), (group, 1, 1)

    def _shares(self, images: int) -> tuple[Array, int]:
        """Scratch for two sums of every channel over each share of so many images, behind room for
        those over all shares; and how many shares there are."""
        sums = 2 * self.blocks * self.block
        start = round_up(sums, 128)
        count = shares_of(self.device, self.shares, images, self.plane)
        if not self.device.long_items:  # each of the work-items that add them up has as many
            wide = self.numbers.wide or self.device.wide
            lanes = self.device.group * wide // self.block
            count -= count % lanes if count > lanes else 0
        return self.scratch.part(start, start + count * sums), count

    def _added(self, run: Pass, partial: Array, count: int) -> tuple[Array, int]:
        """The shares' sums as what writes the result shall find them, and of how many shares: as
        they are, or added up into one."""
        if self.adds_shares(run, count):
            return partial, count
        total, group = self.scratch.part(0, 2 * self.blocks * self.block), self.device.group
        self.kernels.add_shares(self.blocks * group, total, partial, count, group=group)
        return total, 1

    def adds_shares(self, run: Pass, count: int) -> bool:
        """Whether each group of what writes the result adds up the shares by itself, which spares a
        launch: if all of them together do not read longer than that takes. On CPUs shares are
        few."""
        if self.device.long_items:
            return True
        (items, _, _), (group, _, _) = self._planes(run.images)
        groups = parts(items, group) * self.blocks * run.images
        nbytes = 2 * 4 * self.block * count
        return groups * nbytes <= LAUNCH_BYTES * self.device.units

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if self.blocked:
            partial, count = self._backward_sums(run, dy, x[0], x[0], dy)
            self._backward_apply(run, dx[0], dy, x[0], self.rectify, partial, count)
            return
        group = self.device.group
        wants_dx = dx[0] is not None
        self.kernels.batchnorm_backward(
            self.channels * group, dx[0] or dy, self.dweight, self.dbias, dy, x[0], self.weight,
            self.mean, self.inverse, run.images, self.channels, self.plane, int(run.accumulate),
            int(wants_dx), group=group,
        )  # fmt: skip

    def _backward_sums(
        self, run: Pass, dy: Array, x: Array, y: Array, passed: Array
    ) -> tuple[Array, int]:
        """The sums that gradients are made of, and of how many shares. With a shortcut, `passed` is
        filled with what of dy passes the ReLU, as y tells."""
        partial, count = self._shares(run.images)
        group = self.device.group
        self.kernels.backward_sums(
            (self.blocks * group, count), partial, passed, dy, x, y, self.mean, self.inverse,
            self.weight, self.bias, run.images, self.channels, self.plane, int(self.rectify),
            group=(group, 1),
        )  # fmt: skip
        return self._added(run, partial, count)

    def _backward_apply(
        self, run: Pass, dx: Array | None, dy: Array, x: Array, rectify: bool, partial: Array,
        count: int,
    ) -> None:  # fmt: skip
        """dweight, dbias, and dx if it is wanted."""
        wants_dx = dx is not None
        # Without dx, one group of each block will do.
        items, group = self._planes(run.images if wants_dx else 1)
        self.kernels.backward_apply(
            items, dx or dy, self.dweight, self.dbias, partial, dy, x, self.mean, self.inverse,
            self.weight, self.bias, count, run.images, self.channels, self.plane, int(rectify),
            int(run.accumulate), int(wants_dx), group=group,
        )  # fmt: skip
