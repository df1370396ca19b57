"""A trained network ready to look at images: `mpitrain.load(checkpoint)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.folder import usual_mean, usual_std
from mpitrain.engine.registry import open_device
from mpitrain.job import checkpoint
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Pass
from mpitrain.network import models
from mpitrain.network.graph import Graph, parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.models import netfile
from mpitrain.network.network import Network


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
) -> Model:
    """The model of a checkpoint, or of the newest one of a run directory.

    network: the file holds weights alone, of this network. Raises UserError if the file is no
    checkpoint of mpitrain, or not of that network.
    """
    path = checkpoint.file_of(Path(path))
    with checkpoint.Reader(path) as reader:
        settings = reader.settings() if network is None else {}
        decoded = (
            netfile.decode(settings["network"], str(path), dropout=True)
            if network is None
            else _fitting(network, reader)
        )
        c, *_ = decoded.input_shape
        mean, std = settings.get("mean") or usual_mean(c), settings.get("std") or usual_std(c)
        if len(mean) != c:
            raise UserError(f"{path}: {len(mean)} means for the {c} channels of {decoded.name}")
        graph = Graph(open_device(device, local_rank), decoded, capacity, training=False)
        theirs = reader.weights()
        for vector, layout in (
            (graph.weights, graph.layout),
            (graph.statistics, graph.statistics_layout),
        ):
            for name, slot in layout.slots.items():
                if name not in theirs or reader.shape(theirs[name]) != slot.shape:
                    raise UserError(
                        f"{path}: expected {name} of shape {slot.shape} for {decoded.name}"
                    )
                values = reader.read(theirs[name]).astype(np.float32)
                vector.part(slot.start, slot.stop).write(values)
    graph.normalise(np.array(mean, np.float32), np.array(std, np.float32))
    run = settings.get("run", {"data": "", "seed": 0})
    names = tuple(settings.get("classes", ()))
    resize = run.get("resize")
    if resize is not None and (type(resize) is not int or resize < max(decoded.input_shape[1:])):
        raise UserError(f"{path}: run.resize is {resize!r}; expected a number of pixels")
    return Model(graph, names, run["data"], run["seed"], run.get("layout"), resize)


def _fitting(name: str, reader: checkpoint.Reader) -> Network:
    """A named network with as many classes as a file's weights have scores."""
    network, theirs = models.load(name), reader.weights()
    shapes = parameters_of(network, infer_shapes(network))
    head = next(each for each in reversed(shapes) if len(shapes[each].shape) > 1)
    if head not in theirs:
        raise UserError(f"{reader.path}: expected {head}, as {network.name} has it")
    return models.load(name, None, reader.shape(theirs[head])[0])
