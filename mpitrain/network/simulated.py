"""A network on devices that are not here: computing is sleeping, while batches, gradients and
weights travel as they would.

Holds weights and gradient and no activations, so a host has room for many ranks of a large network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.mixup import Mixed
from mpitrain.engine.engine import Engine
from mpitrain.exchange.bucket import Bucket
from mpitrain.layers.dense.split import SplitDense
from mpitrain.layers.dense.travel import TravellingRows
from mpitrain.layers.layer import Pass
from mpitrain.network.graph import Graph, layouts_of, parameters_of, statistics_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.network import Network
from mpitrain.network.parameters import Layout

BACKWARD = 2 / 3
"""Share of a step's time: the backward pass computes two products where the forward pass computes
one."""
GRADIENT = 1e-4
"""Every value of every gradient. What it is does not matter to who carries it, as long as it is not
nothing."""


class SimulatedGraph(Graph):
    """Takes `seconds` an image, divided over layers as their FLOPs are; a bucket is complete when
    its layers' time is over."""

    def __init__(self, device: Engine, network: Network, capacity: int, seconds: float) -> None:
        self.device, self.network, self.capacity = device, network, capacity
        self.shapes = infer_shapes(network)
        self.parameters = parameters_of(network, self.shapes)
        self.layout, self.own_layout = layouts_of(self.parameters)
        self.statistics_layout = Layout(statistics_of(network, self.shapes))
        self.buckets = self.layout.buckets()
        self.weights = device.zeros((self.layout.length,))
        self.gradient = device.zeros((self.layout.length,))
        self.own_weights = device.zeros((self.own_layout.length,))
        self.own_gradient = device.zeros((self.own_layout.length,))
        self.own_gradient.fill(GRADIENT)
        self.statistics = device.upload(self.statistics_layout.initial(0))
        self.normal = np.zeros(0, np.float32), np.ones(0, np.float32)
        self._seconds = seconds
        self._pace = self._paces()
        self._rows = [
            TravellingRows(node.layer, *self._inputs_of(node))
            for node in network.nodes
            if isinstance(node.layer, SplitDense)
        ]

    def _paces(self) -> list[tuple[int, float]]:
        """For each node, last first: where the gradients that are complete after it start, and its
        share of the FLOPs."""
        found, start = [], self.layout.coded
        for node in reversed(self.network.nodes):
            start = min([start, *(slot.start for slot in self._slots_of(node) if slot.coded)])
            found.append((start, float(node.layer.flops(*self._inputs_of(node)))))
        total = sum(flops for _, flops in found) or 1.0
        return [(start, flops / total) for start, flops in found]

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that it holds."""
        shared = self.weights.nbytes + self.gradient.nbytes + self.statistics.nbytes
        return shared + self.own_weights.nbytes + self.own_gradient.nbytes

    def normalise(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Remembered, and not used."""
        self.normal = mean, std

    def load(self, images: NDArray[Any], labels: NDArray[Any], mixed: Mixed | None = None) -> None:
        """Images have come all the way; they are not looked at."""

    def soften(self, smoothing: float) -> None:
        """There is no loss."""

    def forward(self, run: Pass) -> None:
        """The time of the forward pass; rows of split layers travel."""
        time.sleep(run.images * self._seconds * (1 - BACKWARD))
        for rows in self._rows:
            rows.forward(run.everyone)

    def backward(self, run: Pass, last: bool = True) -> Iterator[Bucket]:
        """The time of the backward pass, layer by layer, and each bucket when its layers' time is
        over; rows of split layers travel first, which are the last ones of a network."""
        for rows in reversed(self._rows):
            rows.backward(run.everyone)
        self.own_complete = last
        waiting, debt = (list(self.buckets) if last else []), 0.0
        for start, share in self._pace:
            debt += run.images * self._seconds * BACKWARD * share
            while waiting and waiting[0].start >= start and waiting[0].stop <= self.layout.coded:
                time.sleep(debt)
                debt = 0.0
                yield self._filled(waiting.pop(0))
        time.sleep(debt)
        yield from map(self._filled, waiting)

    def _filled(self, bucket: Bucket) -> Bucket:
        self.gradient.part(bucket.start, bucket.stop).fill(GRADIENT)
        return bucket

    def losses(self, images: int) -> NDArray[np.float32]:
        """None to speak of."""
        return np.zeros(images, np.float32)

    def losses_later(self, images: int) -> Callable[[], NDArray[np.float32]]:
        """The same."""
        return partial(self.losses, images)
