"""What a file says of a trained network, before there is a device: layers, tensors by name, and how
images were normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.folder import usual_mean, usual_std
from mpitrain.job import checkpoint
from mpitrain.job.errors import UserError
from mpitrain.job.pth import PthReader
from mpitrain.job.weights import open_weights
from mpitrain.layers.layer import Shape
from mpitrain.network import models
from mpitrain.network.graph import parameters_of, statistics_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.models import netfile
from mpitrain.network.network import Network

Reader = checkpoint.Reader | PthReader


@dataclass(frozen=True)
class Trained:
    """An open file, and what it is of. Every tensor of the network is in it, in its shape."""

    network: Network
    mean: list[float]
    std: list[float]
    """Of pixels in [0, 1], a number for each channel."""
    classes: tuple[str, ...]
    """Names of classes, as far as they have any."""
    run: Mapping[str, Any]
    """Settings of the run; `data` and `seed` are always there."""
    shapes: Mapping[str, Shape]
    """Of every trained and every measured tensor, by name, in network order."""
    reader: Reader
    _theirs: Mapping[str, str]

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor of the network."""
        return self.reader.read(self._theirs[name]).astype(np.float32)


@contextmanager
def open_trained(
    path: str | Path, network: str | None = None, averaged: bool = True
) -> Iterator[Trained]:
    """What a checkpoint holds, or the newest one of a run directory.

    network: the file holds weights alone, of this network. averaged: of a run with --ema take the
    moving average, as its evaluations did. Raises UserError if the file is no checkpoint of
    mpitrain, or not of that network.
    """
    path = checkpoint.file_of(Path(path))
    with open_weights(path) as reader:
        settings = reader.settings() if network is None else {}
        decoded = (
            netfile.decode(settings["network"], str(path), dropout=True)
            if network is None
            else _fitting(network, reader)
        )
        c, *_ = decoded.input_shape
        mean = list(settings.get("mean") or usual_mean(c))
        std = list(settings.get("std") or usual_std(c))
        if len(mean) != c:
            raise UserError(f"{path}: {len(mean)} means for the {c} channels of {decoded.name}")
        inner = infer_shapes(decoded)
        tensors = {**parameters_of(decoded, inner), **statistics_of(decoded, inner)}
        shapes = {name: each.shape for name, each in tensors.items()}
        theirs = reader.weights(averaged)
        for name, shape in shapes.items():
            if name not in theirs or reader.shape(theirs[name]) != shape:
                raise UserError(f"{path}: expected {name} of shape {shape} for {decoded.name}")
        run = settings.get("run", {"data": "", "seed": 0})
        names: Sequence[str] = settings.get("classes", ())
        yield Trained(decoded, mean, std, tuple(names), run, shapes, reader, theirs)


def _fitting(name: str, reader: Reader) -> Network:
    """A named network with as many classes as a file's weights have scores."""
    network, theirs = models.load(name), reader.weights()
    shapes = parameters_of(network, infer_shapes(network))
    head = next(each for each in reversed(shapes) if len(shapes[each].shape) > 1)
    if head not in theirs:
        raise UserError(f"{reader.path}: expected {head}, as {network.name} has it")
    return models.load(name, None, reader.shape(theirs[head])[0])
