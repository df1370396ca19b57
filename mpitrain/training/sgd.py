"""Momentum SGD on flat device vectors."""

from __future__ import annotations

import numpy as np

from mpitrain.exchange.move import Move
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
        velocity: Array | None = None,
    ) -> None:
        """velocity: zeros (n,) to take as such; None: new memory."""
        self._device = device
        self._kernel = device.program("sgd", NESTEROV=int(nesterov)).momentum_sgd
        self.weights, self.momentum, self.weight_decay = weights, momentum, weight_decay
        self.velocity = velocity or device.zeros(weights.shape)
        self._rate = Varying(np.float32(0))
        self._launches: dict[Move, Launch] = {}

    @property
    def rate(self) -> float:
        """Learning rate of the step; set before its first range."""
        return float(self._rate.value)

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate.value = np.float32(rate)

    def update(self, move: Move) -> None:
        """Move weights by a mean gradient, whose array comes again each step."""
        launch = self._launches.get(move)
        if launch is None:
            launch = self._launches[move] = self._prepare(move)
        launch()

    def _prepare(self, move: Move) -> Launch:
        n = move.stop - move.start
        chunk = CHUNK if self._device.long_items else self._device.wide
        return self._kernel.prepare(
            parts(n, chunk), self.weights.part(move.start, move.stop),
            self.velocity.part(move.start, move.stop), move.mean, n, chunk, self._rate,
            float(self.momentum), float(self.weight_decay),
            move.terms, np.int64(move.apart), float(move.factor),
        )  # fmt: skip
