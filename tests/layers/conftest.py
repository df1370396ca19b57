"""A bench for one layer: what a graph would give it, in arrays that are longer than the batch and
guarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from blocks import from_blocks, to_blocks
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.runtime.array import Array

GUARD = 77
NAN: dict[type[np.generic], float] = {np.float32: np.nan, np.uint16: 0x7FC0, np.uint32: 0x7FC07FC0}
"""What is lost, by an array's numbers."""
Values = NDArray[Any]


class Bench:
    """A layer with `images` images in arrays for `capacity`; all beyond the batch must stay as it
    was."""

    def __init__(
        self, device: Engine, layer: Layer, *shapes: Shape, images: int = 3, spare: int = 2
    ) -> None:
        self.device, self.layer, self.shapes, self.images = device, layer, shapes, images
        self.capacity = images + spare
        layer.name = layer.name or "bench"
        self.output = layer.output_shape(*shapes)
        layer.build(device, *shapes)
        random = np.random.default_rng(0)
        for name, parameter in layer.parameters(*shapes).items():
            setattr(
                layer, name, device.upload(random.normal(size=parameter.shape).astype(np.float32))
            )
            setattr(layer, f"d{name}", self.guarded(parameter.shape))
        for name, statistic in layer.statistics(*shapes).items():
            value = {"zeros": 0.0, "ones": 1.0}[statistic.initial]
            setattr(layer, name, device.upload(np.full(statistic.shape, value, np.float32)))
        self.memory = layer.memory(self.capacity, *shapes)
        for name, (shape, dtype) in self.memory.items():
            setattr(layer, name, self.guarded(device.format.stored_memory(shape), dtype))
        layer.scratch = device.upload(
            np.full(max(1, layer.workspace(self.capacity, *shapes)), np.nan, np.float32)
        )

    def guarded(self, shape: Shape, dtype: Any = np.float32) -> Array:
        return self.device.upload(np.full(shape, GUARD, dtype))

    def batch(self, values: Values) -> Array:
        """An array for `capacity` images that starts with these."""
        whole = np.full((self.capacity, *values.shape[1:]), GUARD, values.dtype)
        whole[: self.images] = values
        fmt = self.device.format
        laid = fmt.numbers(values.shape[1:]).pack(to_blocks(whole, fmt))
        laid[self.images :] = GUARD
        return self.device.upload(laid)

    def result(self, array: Array, shape: Shape, zeros: bool = True) -> Values:
        """The batch's part, once the rest is seen to be untouched."""
        whole = array.download()
        np.testing.assert_array_equal(whole[self.images :], GUARD)
        numbers = self.device.format.numbers(shape)
        whole = numbers.unpack(whole) if array.dtype == numbers.dtype else whole  # argmax is not
        return from_blocks(whole[: self.images], shape[0] if shape else 1, zeros)

    def get(self, name: str) -> Values:
        value: Values = getattr(self.layer, name).download()
        if name in self.memory and len(self.memory[name][0]) == 4:
            return from_blocks(value[: self.images], self.memory[name][0][1], zeros=False)
        return value

    def set(self, name: str, values: Values) -> None:
        getattr(self.layer, name).write(values)

    def forward(self, *x: Values, in_place: bool = False, **run: Any) -> Values:
        self.run = Pass(self.images, **run)
        self.x = [self.batch(each.astype(np.float32)) for each in x]
        fmt = self.device.format
        y = (self.capacity, *fmt.stored(self.output))
        self.y = self.guarded(y, fmt.numbers(self.output).dtype)
        if in_place:
            assert self.layer.shares_memory(self.device.format, *self.shapes)
            self.y = self.x[0].reshape(self.y.shape)
        self.layer.forward(self.run, self.y, *self.x)
        for each, shape in zip(self.x, self.shapes, strict=True):
            self.result(each, shape)
        for name, (shape, _) in self.memory.items():
            if shape and shape[0] == self.capacity:
                self.result(getattr(self.layer, name), shape[1:], zeros=False)
        return self.result(self.y, self.output)

    def backward(
        self, dy: Values, in_place: bool = False, wanted: Sequence[bool] = (), **run: Any
    ) -> list[Values]:
        """Every dx; x and y are lost before it where the layer says that it does not keep them."""
        keeps = [self.layer.keeps_input(number) for number in range(len(self.x))]
        arrays = [*zip(self.x, keeps, strict=True), (self.y, "y" in self.layer.keeps)]
        kept = [each.buffer for each, keeps in arrays if keeps]
        for each, _ in arrays:
            if each.buffer not in kept:  # in place, one buffer is x and y
                each.fill(NAN[each.dtype.type])
        dy_array = self.batch(dy.astype(np.float32))
        fmt = self.device.format
        laid = [(self.capacity, *fmt.stored(shape)) for shape in self.shapes]
        types = [fmt.numbers(shape).dtype for shape in self.shapes]
        dx: list[Array | None] = [self.guarded(*each) for each in zip(laid, types, strict=True)]
        if in_place:
            dx[0] = dy_array.reshape(laid[0])
        for number, want in enumerate(wanted):
            dx[number] = dx[number] if want else None
        self.layer.backward(Pass(**{**vars(self.run), **run}), dx, dy_array, self.x, self.y)
        return [
            self.result(each, shape)
            for each, shape in zip(dx, self.shapes, strict=True)
            if each is not None
        ]


@pytest.fixture
def bench(device: Engine) -> Callable[..., Bench]:
    def make(layer: Layer, *shapes: Shape, **options: Any) -> Bench:
        return Bench(device, layer, *shapes, **options)

    return make


def slope(
    function: Callable[[Values], Values], x: Values, dy: Values, step: float = 1e-5
) -> Values:
    """The numerical gradient of sum(dy * function(x)), in float64 and by central differences."""
    x = x.astype(np.float64)
    dx = np.empty_like(x)
    for place in np.ndindex(x.shape):
        there = x.copy()
        there[place] += step
        above = (dy * function(there)).sum()
        there[place] -= 2 * step
        dx[place] = (above - (dy * function(there)).sum()) / (2 * step)
    return dx


@pytest.fixture
def numerical() -> Callable[..., Values]:
    return slope
