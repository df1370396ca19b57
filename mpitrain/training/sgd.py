"""Momentum SGD on flat device vectors, and how the learning rate moves."""

from __future__ import annotations

import math

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
    Source: PAPER's optimiser, with decay."""

    def __init__(
        self,
        device: Device,
        weights: Array,
        momentum: float,
        weight_decay: float,
        velocity: Array | None = None,
    ) -> None:
        """velocity: zeros (n,) to take as such; None: new memory."""
        self._device = device
        self._kernels = device.program("sgd")
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
        return self._kernels.momentum_sgd.prepare(
            parts(n, chunk), self.weights.part(move.start, move.stop),
            self.velocity.part(move.start, move.stop), move.mean, n, chunk, self._rate,
            float(self.momentum), float(self.weight_decay),
            move.terms, np.int64(move.apart), float(move.factor),
        )  # fmt: skip


def learning_rate(step: int, steps: int, lr: float, schedule: str, warmup: int) -> float:
    """The rate of step 0 .. steps - 1.

    warmup: so many steps rise in a line to lr. Then "constant"; "step": a tenth after 1/2 and again
    after 3/4 of the run; "cosine": half a cosine down to 0.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "step":
        return lr * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * done))
    return lr
