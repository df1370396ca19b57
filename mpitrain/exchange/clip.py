"""Clip a mean gradient by its norm: g = g min(1, limit / (|g| + 1e-6)), over all buckets.

Source: Pascanu, Mikolov and Bengio, 2013; the 1e-6 is that of PyTorch's clip_grad_norm_.
"""

from __future__ import annotations

import math

import numpy as np

from mpitrain.exchange.codec_protocol import BLOCK
from mpitrain.exchange.sums import BLOCKS, Squares
from mpitrain.job.cut import parts
from mpitrain.mpi.agree import Agree
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.recording import Varying


class Clip:
    """Clips one flat vector, the same one each step."""

    def __init__(self, device: Device, limit: float, gradient: Array, shared: Agree | None) -> None:
        """gradient: float32 (n,). shared: where every rank has the mean; None if rank 0 alone
        has."""
        self._limit, self._shared = limit, shared
        n, values = gradient.size, BLOCKS * BLOCK if device.long_items else device.wide
        self._squares, self._factor = Squares(gradient), Varying(np.float32(1))
        self._shrink = device.program("norm").shrink.prepare(
            parts(n, values), gradient, n, values, self._factor
        )

    def __call__(self) -> float:
        """Clip the vector; returns its norm before. One that is not finite leaves it as it is.

        Collective where every rank has the mean. All take rank 0's norm, for unlike devices may add
        up squares in another order; the same factor times the same mean is the same bytes.
        """
        norm = math.sqrt(self._squares())
        if self._shared is not None:
            norm = float(self._shared.table(np.array([norm]))[0, 0])
        factor = min(1.0, self._limit / (norm + 1e-6))
        if math.isfinite(norm) and factor < 1:
            self._factor.value = np.float32(factor)
            self._shrink()
        return norm
