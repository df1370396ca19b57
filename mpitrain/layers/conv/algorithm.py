"""What an algorithm for a pass of a convolution is, and a family of them that share their code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mpitrain.engine.engine import Engine
from mpitrain.layers.conv import correlation
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array

PassName = Literal["forward", "backward data", "backward filter"]
PASSES: tuple[PassName, ...] = ("forward", "backward data", "backward filter")


@dataclass(frozen=True)
class Algorithm:
    """One pass of one layer on one device.

    `run` is forward(y, x, weight, bias, rectify, images, scratch), backward data(dx, dy, weight,
    images, scratch) or backward filter(dweight, dy, x, accumulate, images, scratch).
    """

    name: str
    workspace: Callable[[int], int]
    """Float32 values of scratch for so many images."""
    run: Callable[..., None]
    rectifies: bool = False
    """Whether a forward pass does the ReLU itself."""
    packings: Sequence[Any] = ()
    """What a graph may make of all layers' weights at once, before each forward pass:
    packed_weights.py."""


class Family(ABC):
    """Algorithms that differ in a size; registry.py lists the families."""

    precise = False
    """Whether it alone computes in the device's precision: then it is taken wherever it can be."""

    @abstractmethod
    def names(self, device: Engine, g: Geometry, what: PassName) -> Sequence[str]:
        """Its algorithms that can compute this pass."""

    @abstractmethod
    def make(self, name: str, device: Engine, g: Geometry, what: PassName) -> Algorithm:
        """One of them."""

    @abstractmethod
    def cost(self, name: str, device: Engine, g: Geometry, what: PassName, images: int) -> float:
        """A count of its work, comparable between the algorithms of an engine."""


class ByCorrelation(Family):
    """Both the forward pass and the gradient by x are correlations, on images in blocks."""

    @abstractmethod
    def correlation(self, name: str, device: Engine, sums: Correlation) -> Any:
        """One correlation: called with (y, x, weight, bias, rectify, images, scratch)."""

    @abstractmethod
    def filter(self, name: str, device: Engine, g: Geometry) -> Any:
        """The gradient by the weights: called with (dweight, dy, x, accumulate, images,
        scratch)."""

    def compile(self, chosen: Any) -> None:
        """Have the kernels of a correlation or filter compiled, where they are not yet."""

    def make(self, name: str, device: Engine, g: Geometry, what: PassName) -> Algorithm:
        if what == "forward":
            forward = self.correlation(name, device, correlation.forward(g))
            self.compile(forward)
            return Algorithm(name, forward.workspace, forward, rectifies=True)
        if what == "backward filter":
            by_filter = self.filter(name, device, g)
            self.compile(by_filter)
            return Algorithm(name, by_filter.workspace, by_filter)
        sums = [self.correlation(name, device, each) for each in correlation.backward_data(g)]
        for each in sums:
            self.compile(each)

        missed = missed_size(device, g)

        def run(dx: Array, dy: Array, weight: Array, images: int, scratch: Array) -> None:
            clear(dx, images * missed)
            for each in sums:
                each(dx, dy, weight, None, False, images, scratch)

        def workspace(images: int) -> int:
            return max((each.workspace(images) for each in sums), default=0)

        return Algorithm(name, workspace, run)


def missed_size(device: Engine, g: Geometry) -> int:
    """Values of an image of dx to clear first: all if the stride leaves pixels of x that no tap of
    the filter meets, else none."""
    missed = len(correlation.backward_data(g)) < g.stride[0] * g.stride[1]
    return device.format.stored_size((g.groups * g.c, g.h, g.w)) if missed else 0


def clear(dx: Array, count: int) -> None:
    """Zero the first values of dx."""
    if count:
        dx.reshape((count,)).fill(0)
