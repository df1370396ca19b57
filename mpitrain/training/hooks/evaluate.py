"""Loss, top-1 and top-5 on test images, shared among ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpitrain.data.source import Split
from mpitrain.layers.accuracy import Accuracy
from mpitrain.layers.layer import Pass
from mpitrain.mpi.wire import Wire
from mpitrain.network.graph import Graph


@dataclass(frozen=True)
class Scores:
    """Means over test images; top1 and top5 are shares of 1."""

    loss: float
    top1: float
    top5: float
    images: int


def score(
    wire: Wire, graph: Graph, split: Split | None, count: int, alive: Callable[[], None] = lambda: None
) -> Scores:
    """Collective. Rank 0 holds the split of `count` images and sends each rank its part, a graph's capacity at a time."""
    accuracy = Accuracy(graph.device, graph.network.classes)
    rank_of = graph.device.empty((graph.capacity,), np.int32)
    batch = min(wire.agree.gather_facts(graph.capacity)) * wire.ranks.size
    shape = graph.network.input_shape
    dtype = np.dtype(wire.agree.from_root(lambda: str(split.dtype) if split else ""))
    sums = np.zeros(3)
    for first in range(0, count, batch):
        total = min(batch, count - first)
        shares = [
            slice(total * rank // wire.ranks.size, total * (rank + 1) // wire.ranks.size)
            for rank in range(wire.ranks.size)
        ]
        batch_images, batch_labels = split.read(np.arange(first, first + total)) if split else (None, None)
        labels32 = None if batch_labels is None else batch_labels.astype(np.int32)
        images, labels = wire.scatter.start(batch_images, labels32, shares, shape, dtype).wait()
        if len(images):
            run = Pass(len(images), training=False)
            graph.load(images, labels)
            graph.forward(run)
            accuracy(rank_of, graph.scores, graph.labels, len(images))
            found = rank_of.reshape((len(images),)).download()
            sums += graph.losses(len(images)).sum(dtype=np.float64), (found < 1).sum(), (found < 5).sum()
        alive()
    loss, top1, top5 = wire.agree.sum(sums) / count
    return Scores(float(loss), float(top1), float(top5), count)
