"""The exponential moving average of the weights, with which --ema evaluates.

After step t, counted from 1:  a = a + (1 - d) (w - a),  d = min(decay, (1 + t) / (10 + t)), of the
weights that all ranks share and of the running means and variances. Every rank keeps it by itself:
the same operations on the same bytes. Source: Polyak and Juditsky, 1992; d grows as in TensorFlow's
ExponentialMovingAverage, so that short runs do not evaluate the weights they began with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mpitrain.job.cut import parts
from mpitrain.network.graph import Graph
from mpitrain.runtime.array import Array
from mpitrain.runtime.program import Launch
from mpitrain.runtime.recording import Varying

CHUNK = 16384
"""Values that a work-item of a CPU handles: 64 KiB of each vector."""


class WeightAverage:
    """Averages of a graph's weights and statistics, laid out as they are."""

    def __init__(self, graph: Graph, decay: float) -> None:
        device = graph.device
        self._decay, self._device = decay, device
        self.weights = device.zeros(graph.weights.shape)
        self.statistics = device.zeros(graph.statistics.shape)
        pairs = [(self.weights, graph.weights), (self.statistics, graph.statistics)]
        self._pairs = [(average, vector) for average, vector in pairs if vector.size]
        self._rate = Varying(np.float32(0))
        kernels, chunk = device.program("average"), CHUNK if device.long_items else device.wide

        def launches(name: str, *more: Varying) -> list[Launch]:
            return [
                getattr(kernels, name).prepare(parts(a.size, chunk), a, w, a.size, chunk, *more)
                for a, w in self._pairs
            ]

        self._follow, self._swap = launches("follow", self._rate), launches("swap")

    @property
    def vectors(self) -> list[Array]:
        """What it holds, without empty ones."""
        return [average for average, _ in self._pairs]

    def begin(self) -> None:
        """Take the values that are there now."""
        for average, vector in self._pairs:
            average.copy_from(vector)

    def follow(self, step: int) -> None:
        """Queue taking up the weights after a step, counted from 1."""
        self._rate.value = np.float32(1 - decay_after(step, self._decay))
        for launch in self._follow:
            launch()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the graph computes with the averages; no memory for a third copy is needed."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for launch in self._swap:
            launch()
        self._device.finish()


def decay_after(step: int, decay: float) -> float:
    """The share of the average that stays when step 1, 2, .. is taken up."""
    return min(decay, (1 + step) / (10 + step))
