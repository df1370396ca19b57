"""One step of mpitrain on one rank, for comparison with a reference: weights, images and labels in,
loss and gradients out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device
from mpitrain.layers.layer import Pass
from mpitrain.network import models
from mpitrain.network.graph import Graph


def mpitrain_gradients(
    network: str,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: dict[str, NDArray[np.float32]],
    device: str | Engine = "auto",
    sub_batch: int | None = None,
) -> tuple[float, dict[str, NDArray[np.float32]]]:
    """Loss (sum over images) and gradient of every parameter (sums), on a device in its precision,
    in sub-batches if asked."""
    classes = next(
        array.shape[0] for name, array in reversed(weights.items()) if name.endswith("bias")
    )
    shape = (images.shape[1], images.shape[2], images.shape[3])
    definition = models.load(network, shape, classes, dropout=False)
    step = sub_batch or len(images)
    engine = open_device(device) if isinstance(device, str) else device
    graph = Graph(engine, definition, capacity=step)
    for name, array in weights.items():
        graph.view(graph.weights, name).write(array.astype(np.float32))
    loss = 0.0
    for first in range(0, len(images), step):
        part = slice(first, first + step)
        run = Pass(len(images[part]), accumulate=first > 0)
        graph.load(images[part], labels[part])
        graph.forward(run)
        for _ in graph.backward(run):
            pass
        loss += float(graph.losses(run.images).sum(dtype=np.float64))
    return loss, {name: graph.view(graph.gradient, name).download() for name in weights}
