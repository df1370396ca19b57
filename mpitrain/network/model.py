"""A trained network ready to look at images: `mpitrain.load(checkpoint)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.registry import open_device
from mpitrain.job import checkpoint
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Pass
from mpitrain.network.graph import Graph
from mpitrain.network.models import netfile


class Model:
    """A network with its weights on a device, for at most `capacity` images at a time."""

    def __init__(
        self,
        graph: Graph,
        class_names: tuple[str, ...],
        trained_on: str,
        seed: int,
        layout: str | None = None,
    ) -> None:
        self.graph, self.network = graph, graph.network
        self.class_names, self.trained_on, self.seed = class_names, trained_on, seed
        self.layout = layout

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities (n, classes) of images (n, C, H, W), uint8 or float32 as in training, in
        any number."""
        if images.ndim != 4 or images.shape[1:] != tuple(self.network.input_shape):
            raise UserError(
                f"images are {images.shape}, {self.network.name} takes (n, "
                f"{', '.join(map(str, self.network.input_shape))})"
            )
        found = np.empty((len(images), self.network.classes), np.float32)
        step = self.graph.capacity
        for first in range(0, len(images), step):
            part = images[first : first + step]
            self.graph.load(part, np.zeros(len(part), np.int64))
            self.graph.forward(Pass(len(part), training=False))
            scores = (
                self.graph.scores.reshape((len(part), self.network.classes))
                .download()
                .astype(np.float64)
            )
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            found[first : first + step] = powers / powers.sum(axis=1, keepdims=True)
        return found


def load(path: str | Path, device: str = "auto", capacity: int = 64, local_rank: int = 0) -> Model:
    """The model of a checkpoint. Raises UserError if the file is no checkpoint of mpitrain."""
    path = Path(path)
    with checkpoint.Reader(path) as reader:
        settings = reader.settings()
        network = netfile.decode(settings["network"], str(path), dropout=True)
        if len(settings["mean"]) != network.input_shape[0]:
            raise UserError(
                f"{path}: {len(settings['mean'])} means for the {network.input_shape[0]} channels "
                f"of {network.name}"
            )
        graph = Graph(open_device(device, local_rank), network, capacity, training=False)
        for vector, layout in (
            (graph.weights, graph.layout),
            (graph.statistics, graph.statistics_layout),
        ):
            for name, slot in layout.slots.items():
                if name not in reader.names or reader.shape(name) != slot.shape:
                    raise UserError(
                        f"{path}: expected {name} of shape {slot.shape} for {network.name}"
                    )
                vector.part(slot.start, slot.stop).write(reader.read(name).astype(np.float32))
    graph.normalise(np.array(settings["mean"], np.float32), np.array(settings["std"], np.float32))
    run = settings["run"]
    return Model(graph, tuple(settings["classes"]), run["data"], run["seed"], run.get("layout"))
