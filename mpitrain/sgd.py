"""Momentum SGD on flat device vectors, and how the learning rate moves."""

from __future__ import annotations

import math

from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

CHUNK = 16384
"""Values a work-item updates on a CPU: 64 KiB of each vector."""


class MomentumSgd:
    """v = momentum v - rate (g + decay w),  w = w + v,  for a range of the vector at a time. Source: PAPER's optimiser, with decay."""

    def __init__(self, device: Device, weights: Array, momentum: float, weight_decay: float) -> None:
        self._device = device
        self._kernels = device.program("sgd")
        self.weights, self.momentum, self.weight_decay = weights, momentum, weight_decay
        self.velocity = device.zeros(weights.shape)
        self.rate = 0.0
        """Learning rate of the step; set before its first range."""

    def update(self, start: int, stop: int, mean: Array) -> None:
        """Move weights [start, stop) by the mean gradient (stop - start,)."""
        n = stop - start
        chunk = CHUNK if self._device.kind == "cpu" else self._device.wide
        self._kernels.momentum_sgd(
            -(-n // chunk), self.weights.part(start, stop), self.velocity.part(start, stop), mean, n, chunk,
            float(self.rate), float(self.momentum), float(self.weight_decay),
        )  # fmt: skip


def learning_rate(step: int, steps: int, lr: float, schedule: str, warmup: int) -> float:
    """The rate of step 0 .. steps - 1.

    warmup: so many steps rise in a line to lr. Then "constant"; "step": a tenth after 1/2 and again after 3/4 of the run; "cosine":
    half a cosine down to 0.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "step":
        return lr * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * done))
    return lr
