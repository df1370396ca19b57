"""Channels of several values, one behind the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.job.cut import parts, round_up
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Layer, Pass, Shape
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Program


class Concat(Layer):
    """y[n, offset + c] = x[n, c] for each x, whose offset is the channels of those before it; each
    dx is its channels of dy. Takes two values or more of one height and width, or rows."""

    inputs = 2
    takes_more = True

    def output_shape(self, *shapes: Shape) -> Shape:
        first = shapes[0]
        for shape in shapes[1:]:
            if len(shape) != len(first) or shape[1:] != first[1:]:
                raise UserError(
                    "joins channels of values of one height and width, got "
                    f"{', '.join(map(str, shapes))}"
                )
        return (sum(shape[0] for shape in shapes), *first[1:])

    def build(self, device: Engine, *shapes: Shape) -> None:
        self.device = device
        self.copies = list(_copies(device, shapes, self.output_shape(*shapes)))

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        for copy, each in zip(self.copies, x, strict=True):
            copy.queue("concat", self.device, run, y, each, copy.until)

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        for copy, each in zip(self.copies, dx, strict=True):
            if each is not None:
                copy.queue("concat_backward", self.device, run, each, dy, copy.stored)


@dataclass(frozen=True)
class _Copy:
    """Between a value and its channels of y; kernels/concat.cl has the form."""

    program: Program
    unit: int
    """Channels that are moved side by side."""
    block: int
    """Channels side by side in x."""
    channels: int
    stored: int
    """Channels of x with those that fill up its last block."""
    until: int
    """Channels that are written into y: the last value's also fill up y's last block."""
    offset: int
    pixels: int
    blocks: int
    """Blocks of channels in y."""

    def queue(
        self, kernel: str, device: Engine, run: Pass, to: Array, origin: Array, until: int
    ) -> None:
        """Fill `until` channels of `to`."""
        items = parts(until, self.unit)
        if not device.long_items:
            items = parts(until, self.block) * (self.block // self.unit) * self.pixels
        integers = (self.channels, until, self.offset, self.pixels, self.blocks)
        getattr(self.program, kernel)(
            (items, run.images), to, origin, *integers, group=(device.group, 1)
        )


def _copies(device: Engine, shapes: Sequence[Shape], output: Shape) -> Iterator[_Copy]:
    """One for each value."""
    fmt, offset = device.format, 0
    y_block, y_numbers = _block(fmt, output), fmt.numbers(output)
    blocks = parts(output[0], y_block)
    for number, shape in enumerate(shapes):
        channels, block, numbers = shape[0], _block(fmt, shape), fmt.numbers(shape)
        widest = device.wide if numbers is not y_numbers else y_numbers.wide or device.wide
        unit = math.gcd(channels, offset, block, y_block, widest)
        program = device.program(
            "concat",
            **{
                **y_numbers.definitions,
                **({"WIDTH": unit} if unit > 1 else {"WIDTH": device.wide}),
                "UNIT": unit,
                "X_BLOCK": block,
                "Y_BLOCK": y_block,
                "X_FLOAT": int(numbers is not y_numbers),
            },
        )
        last = number == len(shapes) - 1
        yield _Copy(
            program,
            unit,
            block,
            channels,
            round_up(channels, block),
            blocks * y_block - offset if last else channels,
            offset,
            math.prod(shape[1:]),
            blocks,
        )
        offset += channels


def _block(fmt: Format, shape: Shape) -> int:
    """Channels side by side in a value; features of a row count as channels of one pixel."""
    return fmt.block_of(shape[0]) if len(shape) == 3 and fmt.block > 1 else 1
