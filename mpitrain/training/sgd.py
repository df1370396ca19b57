"""Momentum SGD on flat device vectors."""

from __future__ import annotations

import numpy as np

from mpitrain.job.cut import parts
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Launch
from mpitrain.runtime.recording import Varying

CHUNK = 16384
"""Values a work-item updates on a CPU: 64 KiB of each vector."""


class MomentumSgd:
    """v = momentum v - rate (g + decay w),  w = w + v,  for a range of the vector at a time.

    nesterov: w = w + momentum v - rate (g + decay w), with the new v: PyTorch's, while the rate
    stays the same. Source: PAPER's optimiser, with decay; Sutskever et al., 2013.
    """

    def __init__(
        self,
        device: Device,
        weights: Array,
        momentum: float,
        weight_decay: float,
        nesterov: bool = False,
    ) -> None:
        self._device = device
        kernels = device.program("sgd")
        self._kernel = kernels.nesterov_sgd if nesterov else kernels.momentum_sgd
        self.weights, self.momentum, self.weight_decay = weights, momentum, weight_decay
        self.velocity = device.zeros(weights.shape)
        self._rate = Varying(np.float32(0))
        self._launches: dict[tuple[int, int, Array], Launch] = {}

    @property
    def rate(self) -> float:
        """Learning rate of the step; set before its first range."""
        return float(self._rate.value)

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate.value = np.float32(rate)

    def update(self, start: int, stop: int, mean: Array) -> None:
        """Move weights [start, stop) by the mean gradient (stop - start,), an array that comes
        again each step."""
        launch = self._launches.get((start, stop, mean))
        if launch is None:
            launch = self._launches[start, stop, mean] = self._prepare(start, stop, mean)
        launch()

    def _prepare(self, start: int, stop: int, mean: Array) -> Launch:
        n = stop - start
        chunk = CHUNK if self._device.long_items else self._device.wide
        return self._kernel.prepare(
            parts(n, chunk), self.weights.part(start, stop), self.velocity.part(start, stop), mean,
            n, chunk, self._rate, float(self.momentum), float(self.weight_decay),
        )  # fmt: skip
