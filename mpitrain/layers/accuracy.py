"""Where the right class stands among an image's scores."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.runtime.array import Array


class Accuracy:
    """rank = number of classes that score higher than the label, equals counting by their number:
    top-k is rank < k.

    A label whose score is NaN, or that is no class, gets the rank `classes`, which no k reaches.
    """

    def __init__(self, device: Engine, classes: int) -> None:
        self.device = device
        self.classes = classes
        self.kernels = device.program("accuracy")

    def __call__(self, rank: Array, x: Array, labels: Array, images: int) -> None:
        """Fill rank int32 (N,) from the scores x (N, classes) and labels int32 (N,), for the first
        `images` of them."""
        group = self.device.group
        self.kernels.accuracy(images * group, rank, x, labels, self.classes, group=group)
