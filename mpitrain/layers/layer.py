"""What every layer is: a shape rule, parameters, and a forward and a backward that belong
together."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from numpy.typing import DTypeLike

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.engine.format import Shape as Shape  # layers are written in terms of it
from mpitrain.job.cut import shards
from mpitrain.job.errors import UserError
from mpitrain.runtime.array import Array


@dataclass(frozen=True)
class Placement:
    """Which slice of a whole tensor one of `size` ranks keeps: a shard of an axis."""

    whole: Shape
    axis: int
    rank: int
    size: int

    @property
    def shards(self) -> list[tuple[int, int]]:
        """The range of the axis that each rank keeps, in rank order."""
        return shards(self.whole[self.axis], self.size)

    @property
    def shape(self) -> Shape:
        """Of this rank's slice."""
        start, stop = self.shards[self.rank]
        return (*self.whole[: self.axis], stop - start, *self.whole[self.axis + 1 :])


@dataclass(frozen=True)
class Parameter:
    """A tensor that training changes (or, for statistics, that it measures), before it has any
    memory.

    `initial` is "he" (normal, standard deviation sqrt(2 / fan)), "uniform" (+-1/sqrt(fan)),
    "normal" (0.01), "zeros" or "ones".
    """

    shape: Shape
    initial: Literal["he", "uniform", "normal", "zeros", "ones"]
    fan: int = 1
    coded: bool = False
    """Whether its gradient may be quantised: matrices and filters are; biases and scales are few
    and sensitive."""
    placement: Placement | None = None
    """Where its values are: None for on every rank; else `shape` is of the slice that this rank
    keeps and updates alone, of gradients of the whole batch."""

    @property
    def whole(self) -> Shape:
        """The shape of the tensor, all slices together."""
        return self.placement.whole if self.placement else self.shape


@dataclass
class Pass:
    """One run of some images through the graph: what layers need to know that is not in their
    arrays."""

    images: int
    """Images in this run, at most the graph's capacity; arrays may be longer."""
    training: bool = True
    accumulate: bool = False
    """Parameter gradients are added to what is there (a later sub-batch) instead of replacing
    it."""
    seed: int = 0
    """Changes every step; dropout draws from it, the layer and the image's place in the global
    batch."""
    first: int = 0
    """Place of this run's first image in the global batch, so that draws do not depend on who
    computes."""
    everyone: tuple[int, ...] = ()
    """Images of each rank in this run, which all ranks make together; needed where a layer is split
    over ranks. `images` may be 0 then."""


class Layer:
    """One node's computation. A subclass says its equation, shape rule, forward and backward in one
    file.

    A network's layer has no memory. `bind` makes a copy that a graph can run, an op, with every
    parameter NAME as `self.NAME` and its gradient as `self.dNAME` (device arrays of the shapes
    given by `parameters`), every statistic and every array of `memory` as `self.NAME`.
    """

    inputs: ClassVar[int] = 1
    """How many values it takes."""
    takes_more: ClassVar[bool] = False
    """Whether it also takes more of them."""
    keeps: tuple[str, ...] = ()
    """Which of "x", "y" and (the second input alone) "x1" its backward reads; the graph frees or
    reuses the others."""
    in_place: ClassVar[bool] = False
    """y may share x's memory, and dx dy's (the first x and dx when there are several)."""
    keeps_rectified: ClassVar[tuple[str, ...]] = ()
    """What its backward reads besides if it rectifies."""
    rectify: bool = False
    """Set by the graph in layers that take on the ReLU after them: y = max(y, 0), and dy counts
    only where y > 0."""
    ceiling: float | None = None
    """Set together with `rectify` where that ReLU has an upper end: y = min(that, ceiling)."""
    gates: bool = False
    """Set by the graph in the only reader of a rectified value: dx is 0 where x is not above 0."""
    gated: bool = False
    """Set in the layer that rectifies that value: its dy comes so, and `keeps_rectified` need not
    be kept."""
    can_be_gated: ClassVar[bool] = False
    """Whether that spares it anything."""
    can_cut: ClassVar[bool] = False
    """Whether it can take on a ReLU with an upper end, where it can take on one without."""
    together: ClassVar[bool] = False
    """Whether all ranks compute it together, so that a rank without images takes part, too."""
    capacity: int = 16
    """Set by the graph: images in a run at most, for which algorithms are chosen."""
    name: str = ""
    """Set by the graph; names the layer in errors and in dropout's draws."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of y for one image from those of its inputs. Raises UserError (without the layer's
        name) if they do not fit."""
        raise NotImplementedError

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        """What it trains, by name, for inputs of these shapes."""
        return {}

    def statistics(self, *shapes: Shape) -> dict[str, Parameter]:
        """What it measures while training and uses afterwards (running means), by name."""
        return {}

    def memory(self, images: int, *shapes: Shape) -> dict[str, tuple[Shape, DTypeLike]]:
        """Arrays that forward fills for backward, beside x and y: name -> (shape, dtype), for so
        many images at most."""
        return {}

    def workspace(self, images: int, *shapes: Shape) -> int:
        """Float32 values of scratch that forward or backward needs for a moment, in `self.scratch`,
        shared by all layers."""
        return 0

    scratch: Array

    @classmethod
    def takes(cls, count: int) -> str:
        """How many values it takes, in words, if it cannot take `count`; else nothing."""
        if count == cls.inputs or (cls.takes_more and count > cls.inputs):
            return ""
        return f"{cls.inputs}{' or more' * cls.takes_more}"

    def shares_memory(self, fmt: Format, *shapes: Shape) -> bool:
        """Whether `in_place` holds for inputs of these shapes in blocks of that many channels."""
        return self.in_place

    def can_rectify(self, fmt: Format, *shapes: Shape) -> bool:
        """Whether it can take on a ReLU for inputs of these shapes, on a device with such
        blocks."""
        return False

    def can_gate(self) -> bool:
        """Whether it can do a ReLU's way back with its own."""
        return False

    def keeps_input(self, number: int) -> bool:
        """Whether its backward reads that x."""
        return "x" in self.keeps or f"x{number}" in self.keeps

    def can_repeat(self, fmt: Format, *shapes: Shape) -> bool:
        """Whether `repeat` is there and cheap: its value need not be kept for the way back."""
        return False

    def repeat(self, run: Pass, y: Array, *x: Array) -> None:
        """Fill y as the last forward did, bit for bit, without measuring anything anew."""
        raise NotImplementedError

    def flops(self, *shapes: Shape) -> int:
        """Multiplications and additions of one image's forward pass; backward takes twice that for
        layers with weights."""
        return 0

    def build(self, device: Engine, *shapes: Shape) -> None:
        """Compile the kernels and keep what the passes need."""

    def bind(
        self,
        device: Engine,
        name: str,
        capacity: int,
        shapes: Sequence[Shape],
        arrays: Mapping[str, Array],
    ) -> Layer:
        """This layer as an op: a copy built for runs of at most `capacity` images of these shapes,
        with these arrays by name. The graph gives it `scratch` when all workspaces are known."""
        op = copy.copy(self)
        op.name, op.capacity = name, capacity
        op.build(device, *shapes)
        vars(op).update(arrays)
        return op

    def packings(self) -> Sequence[tuple[Any, str]]:
        """What its weights are packed into before each forward pass, with those of all layers,
        each with the name of the bias that goes along or ""; layers/conv/packed_weights.py."""
        return ()

    def vary(self, run: Pass) -> None:
        """Set what differs between two runs of as many images: the `Varying` arguments of its
        kernels.

        The graph calls it before each forward pass, whose kernels it may have recorded.
        """

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        """Fill y (N, *output) from x (N, *input): only the first `run.images` images count."""
        raise NotImplementedError

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        """From dy fill each dx that is not None (overwriting it) and the parameters' gradients
        (sums over images).

        x and y hold what forward saw only where `keeps` names them.
        """
        raise NotImplementedError


def pair(value: int | Sequence[int], what: str) -> tuple[int, int]:
    """A size given as one number or two (height, width), as two."""
    two = (value, value) if isinstance(value, int) else tuple(value)
    if len(two) != 2 or not all(isinstance(v, int) for v in two):
        raise UserError(f"{what}: expected one whole number or two, got {value!r}")
    return two[0], two[1]


def size(shape: Shape) -> int:
    """Values in a tensor of this shape."""
    return math.prod(shape)
