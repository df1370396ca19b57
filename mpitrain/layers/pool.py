"""Pooling: the maximum or the mean of windows, or the mean of a whole channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import parts
from mpitrain.job.errors import UserError
from mpitrain.layers.flat import split_rows
from mpitrain.layers.layer import Layer, Pass, Shape, pair
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Kernel


class Windows(Layer):
    """Windows of `kernel` values every `stride` (None: side by side), over x with `padding` on each
    side.

    P = (H + 2 padding - kernel) / stride + 1, rounded down; up with `ceil`, except that no window
    starts in the far padding. Sizes are one number or two, (height, width). Padding is at most half
    the kernel.
    """

    def __init__(
        self,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil: bool = False,
    ) -> None:
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        self.ceil = ceil
        self._window = pair(kernel, "kernel")
        self._per_window = False
        self._step = self._window if stride is None else pair(stride, "stride")
        self._edge = pair(padding, "padding")
        if min(self._window) < 1:
            raise UserError(f"kernel: expected at least 1, got {kernel!r}")
        if min(self._step) < 1:
            raise UserError(f"stride: expected at least 1, got {stride!r}")
        if any(
            not 0 <= edge <= window // 2
            for edge, window in zip(self._edge, self._window, strict=True)
        ):
            raise UserError(f"padding: expected 0 to half the kernel {kernel!r}, got {padding!r}")

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Kernel, stride and padding, each as (height, width)."""
        return self._window, self._step, self._edge

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, height, width = _planes(shapes[0])
        padded = (height + 2 * self._edge[0], width + 2 * self._edge[1])
        if self._window[0] > padded[0] or self._window[1] > padded[1]:
            raise UserError(f"window of {self._window} is larger than the padded input of {padded}")
        return (channels, self._count(height, 0), self._count(width, 1))

    def _count(self, extent: int, axis: int) -> int:
        """Windows along an axis."""
        window, step, edge = self._window[axis], self._step[axis], self._edge[axis]
        room = extent + 2 * edge - window
        if not self.ceil:
            return room // step + 1
        count = parts(room, step) + 1
        return count - 1 if (count - 1) * step >= extent + edge else count

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.channels, *x = shapes[0]
        self.block = device.format.block_of(self.channels)
        self.numbers = device.format.numbers(shapes[0])
        _, *y = self.output_shape(*shapes)
        names = ("R", "S", "STRIDE_H", "STRIDE_W", "PADDING_H", "PADDING_W")
        window = (*self._window, *self._step, *self._edge)
        gates = {"GATES": int(self.gates)}
        if device.long_items:
            self.kernels = device.program("pool", **gates)
            self._integers = (*x, *y, *window)
        else:
            inside, covered = (
                not any(self._edge) and all(map(fits, x, y, self._step, self._window))
                for fits in (_inside, _covered)
            )
            facts = {**dict(zip(names, window, strict=True)), **self.numbers.definitions, **gates}
            facts |= {"INSIDE": int(inside), "SIDE_BY_SIDE": int(covered)}
            self._per_window = covered
            self.kernels = device.program("pool", BLOCK=self.block, **facts)
            self._integers = (*x, *y)
        self._sizes = (x[0] * x[1], y[0] * y[1])

    def _launch(
        self, kernel: Kernel, run: Pass, written: int, *arrays: Array, more: Sequence[int] = ()
    ) -> None:
        """One work-item per plane or few planes on CPUs, on GPUs per vector of `written` pixels."""
        planes = run.images * parts(self.channels, self.block)
        if self.device.long_items:
            items, chunk = split_rows(planes, max(self._sizes) * self.block)
            kernel(items, *arrays, planes, chunk, *self._integers, *more, group=self.device.group)
        else:
            items = planes * written * self.block // (self.numbers.wide or self.device.wide)
            kernel(items, *arrays, planes, *self._integers, *more, group=self.device.group)


class MaxPool(Windows):
    """y = the largest x of its window.  dx = the sum of dy over the windows whose largest it was.

    Of equals the first wins; a NaN wins over all. `argmax`, uint8, keeps its place in the window,
    so that neither x nor y is kept; a window has at most 256 values. One place less can be had
    where it `gates`: the last one then says that the largest was not above 0.
    """

    argmax: Array

    def __init__(
        self,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil: bool = False,
    ) -> None:
        super().__init__(kernel, stride, padding, ceil)
        if self._window[0] * self._window[1] > 256:
            raise UserError(f"kernel: expected a window of at most 256 values, got {kernel!r}")

    def can_gate(self) -> bool:
        return self._window[0] * self._window[1] < 256

    def memory(self, images: int, *shapes: Shape) -> dict[str, tuple[Shape, DTypeLike]]:
        return {"argmax": ((images, *self.output_shape(*shapes)), np.uint8)}

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        self._launch(self.kernels.max_forward, run, self._sizes[1], y, self.argmax, x[0])

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is not None:
            items = self._sizes[1 if self._per_window else 0]
            self._launch(self.kernels.max_backward, run, items, dx[0], dy, self.argmax)


class AveragePool(Windows):
    """y = the mean of its window.  dx = the sum of dy / divisor over the windows that cover it.

    The mean is over the window's values in the input, or with `count_padding` also over those in
    the padding, which are zeros.
    """

    def __init__(
        self,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil: bool = False,
        count_padding: bool = True,
    ) -> None:
        super().__init__(kernel, stride, padding, ceil)
        self.count_padding = count_padding

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        more = (int(self.count_padding),)
        self._launch(self.kernels.average_forward, run, self._sizes[1], y, x[0], more=more)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        if dx[0] is not None:
            more = (int(self.count_padding),)
            self._launch(self.kernels.average_backward, run, self._sizes[0], dx[0], dy, more=more)


class GlobalAveragePool(Layer):
    """y (C, 1, 1) = the mean of each channel.  dx = dy / (H W). An average pool whose one window is
    the whole plane."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return (_planes(shapes[0])[0], 1, 1)

    def build(self, device: Engine, *shapes: Shape) -> None:
        self._pool = AveragePool(shapes[0][1:])
        self._pool.build(device, *shapes)

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        self._pool.forward(run, y, *x)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        self._pool.backward(run, dx, dy, x, y)


def _inside(extent: int, windows: int, step: int, window: int) -> bool:
    """Whether windows from the first value on, a step apart, end before the last."""
    return (windows - 1) * step + window <= extent


def _covered(extent: int, windows: int, step: int, window: int) -> bool:
    """Whether they lie side by side and leave nothing out."""
    return step == window and windows * window == extent


def _planes(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UserError(f"pools (channels, height, width), got {shape}")
    return shape[0], shape[1], shape[2]
