"""The images of each step: rank 0 reads a batch and sends every rank its part while the step before
is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data import augment, order
from mpitrain.data.share import parts
from mpitrain.data.source import Split
from mpitrain.mpi.scatter import Part
from mpitrain.mpi.wire import Wire


@dataclass(frozen=True)
class Batches:
    """What every rank knows of the data, so that it knows its part without being told."""

    count: int
    """Training images."""
    shape: tuple[int, int, int]
    dtype: str
    """"uint8" or "float32"."""
    batch_size: int
    seed: int
    ways: frozenset[str] = frozenset()
    """Augmentation, of "crop" and "flip"."""


class Feed:
    """This rank's part of each step's batch. Rank 0 holds the images; the others give None for
    them."""

    def __init__(self, wire: Wire, batches: Batches, split: Split | None) -> None:
        self._wire, self._batches, self._split = wire, batches, split
        self.parts = parts(batches.batch_size, wire.ranks.size)
        """How the batches that start from now on are divided."""
        self.now = self.parts
        """How the batch that `part` gave out last is divided."""
        self.speeds: tuple[float, ...] | None = None
        """Of each rank, by which batches are divided; None: alike."""
        self._waiting: dict[int, tuple[list[slice], Part]] = {}

    @property
    def mine(self) -> slice:
        """This rank's part of the batch that `part` gave out last."""
        return self.now[self._wire.ranks.rank]

    def divide(self, speeds: Sequence[float]) -> None:
        """Divide batches in proportion to the ranks' speeds, all but those that are on their way.
        All ranks call it at the same step."""
        self.speeds = tuple(speeds)
        self.parts = parts(self._batches.batch_size, self._wire.ranks.size, speeds)

    def start(self, step: int) -> None:
        """Set a step's batch on its way; `part` of that step then waits for what is missing of
        it."""
        of, images, labels = self._batches, None, None
        if self._split is not None:
            images, wide = self._split.read(order.batch(step, of.count, of.batch_size, of.seed))
            labels = wide.astype(np.int32)
        part = self._wire.scatter.start(images, labels, self.parts, of.shape, np.dtype(of.dtype))
        self._waiting[step] = self.parts, part

    def part(self, step: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Images and labels of this rank's part."""
        if step not in self._waiting:
            self.start(step)
        self.now, part = self._waiting.pop(step)
        images, labels = part.wait()
        if self._batches.ways:
            places = np.arange(self.mine.start, self.mine.stop)
            drawn = augment.draws(places, step, self._batches.seed, self._batches.shape)
            images = augment.augment(images, drawn, self._batches.ways)
        return images, labels
