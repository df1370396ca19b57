"""What a way to compute a dense layer's three products is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mpitrain.engine.engine import Engine
from mpitrain.runtime.array import Array


class Way(ABC):
    """The three products of a layer of x (N, inputs) and weight (features, inputs), on one
    device."""

    most_images: float = float("inf")
    """It is for runs of at most so many images."""

    def __init__(self, device: Engine, inputs: int, features: int) -> None:
        self._device, self._inputs, self._features = device, inputs, features

    def compile(self, images: int) -> None:  # noqa: B027  (most compile when they are made)
        """Have the kernels for so many images compiled, where they are not yet."""

    @abstractmethod
    def workspace(self, images: int) -> int:
        """Float32 values of scratch for so many images, or fewer."""

    @abstractmethod
    def forward(
        self, y: Array, x: Array, weight: Array, bias: Array | None, n: int, scratch: Array
    ) -> None:
        """y = x weight' + bias, for n images."""

    @abstractmethod
    def backward_weight(
        self, dweight: Array, dy: Array, x: Array, accumulate: bool, n: int, scratch: Array
    ) -> None:
        """dweight = dy' x, plus what is there if `accumulate`."""

    @abstractmethod
    def backward_data(self, dx: Array, dy: Array, weight: Array, n: int, scratch: Array) -> None:
        """dx = dy weight."""
