"""A trained network ready to look at images: `mpitrain.load(checkpoint)`."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.picture import centre, decode
from mpitrain.engine.registry import open_device
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Pass
from mpitrain.network.graph import Graph
from mpitrain.network.trained import open_trained


class Model:
    """A network with its weights on a device, for at most `capacity` images at a time."""

    def __init__(
        self,
        graph: Graph,
        class_names: tuple[str, ...],
        trained_on: str,
        seed: int,
        layout: str | None = None,
        resize: int | None = None,
    ) -> None:
        self.graph, self.network = graph, graph.network
        self.class_names, self.trained_on, self.seed = class_names, trained_on, seed
        self.layout, self.resize = layout, resize

    def look(self, file: Path | IO[bytes]) -> NDArray[np.uint8]:
        """An image file as uint8 (C, H, W), scaled as the run scaled its test images. Raises
        UserError for what is no image."""
        c, h, w = self.network.input_shape
        return decode(file, (c, h, w), centre(self.resize, (c, h, w)) if self.resize else None)

    def best(self, probabilities: NDArray[np.float32], top: int) -> list[tuple[str, float]]:
        """Names and probabilities of an image's likeliest classes, best first."""
        order = np.argsort(-probabilities, kind="stable")[:top].tolist()
        names = [self.class_names[k] if k < len(self.class_names) else str(k) for k in order]
        return list(zip(names, probabilities[order].tolist(), strict=True))

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities (n, classes) of images (n, C, H, W), uint8 or float32 as in training, in
        any number."""
        images = np.asarray(images)
        if images.dtype not in (np.uint8, np.float32):
            raise UserError(f"images are {images.dtype}; expected uint8 or float32, as in training")
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


def load(
    path: str | Path,
    device: str = "auto",
    capacity: int = 64,
    local_rank: int = 0,
    network: str | None = None,
    averaged: bool = True,
) -> Model:
    """The model of a checkpoint, or of the newest one of a run directory.

    network: the file holds weights alone, of this network. averaged: of a run with --ema take the
    moving average, as its evaluations did. Raises UserError if the file is no checkpoint of
    mpitrain, or not of that network.
    """
    with open_trained(path, network, averaged) as trained:
        device_of_rank = open_device(device, local_rank)
        graph = Graph(device_of_rank, trained.network, capacity, training=False)
        for vector, layout in (
            (graph.weights, graph.layout),
            (graph.statistics, graph.statistics_layout),
        ):
            for name, slot in layout.slots.items():
                vector.part(slot.start, slot.stop).write(trained.read(name))
    graph.normalise(np.array(trained.mean, np.float32), np.array(trained.std, np.float32))
    run = trained.run
    resize, least = run.get("resize"), max(trained.network.input_shape[1:])
    if resize is not None and (type(resize) is not int or resize < least):
        raise UserError(f"{path}: run.resize is {resize!r}; expected a number of pixels")
    return Model(graph, trained.classes, run["data"], run["seed"], run.get("layout"), resize)
