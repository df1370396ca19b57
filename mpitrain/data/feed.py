"""The seam of the data: each step's images and labels on each rank, read ahead of their use.

Every rank derives a step's sample numbers (order.py) and every rank's part of them (share.py) by
itself. A new way to read is a class in a file of its own that overrides `start`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpitrain.data import augment, order
from mpitrain.data.dataset import Images, Shape
from mpitrain.data.share import parts


@dataclass(frozen=True)
class Batches:
    """What every rank knows of the data, so that it can compute its part without communication."""

    count: int
    """Training images."""
    shape: Shape
    dtype: str
    """"uint8" or "float32"."""
    batch_size: int
    seed: int
    ways: frozenset[str] = frozenset()
    """Augmentation, of "crop" and "flip"."""
    piece: int = 1
    """Images that are not divided between ranks; only the last piece of a batch may have fewer."""


class Reading(Protocol):
    """A rank's part of a batch that may still be on its way."""

    def wait(self) -> tuple[Images, NDArray[np.int32]]:
        """Images (k, C, H, W) and labels int32 (k,), when they are here."""


class Feed:
    """This rank's part of each step's batch: the ranks' parts, in rank order, are the batch.

    All ranks call `ahead`, `part` and `divide` in the same order.
    """

    def __init__(self, rank: int, size: int, batches: Batches) -> None:
        self.batches = batches
        self.next_parts = parts(batches.batch_size, size, piece=batches.piece)
        """How the batches whose reading starts from now on are divided, a slice for each rank."""
        self.current_parts = self.next_parts
        """How the batch that `part` returned last is divided."""
        self.speeds: tuple[float, ...] | None = None
        """Images a second of each rank, by which batches are divided; None: equal parts."""
        self.rank, self.size = rank, size
        self._reading: dict[int, tuple[list[slice], Reading]] = {}

    def start(self, numbers: NDArray[np.int64], parts: Sequence[slice]) -> Reading:
        """Start to read this rank's part of the batch with these sample numbers (batch_size,).

        parts: a slice of the batch for each rank. A subclass overrides this, and nothing else.
        """
        raise NotImplementedError

    @property
    def mine(self) -> slice:
        """This rank's places in the batch that `part` returned last."""
        return self.current_parts[self.rank]

    @property
    def counts(self) -> tuple[int, ...]:
        """Images of each rank in that batch."""
        return tuple(part.stop - part.start for part in self.current_parts)

    def divide(self, speeds: Sequence[float]) -> None:
        """Divide the batches that are not yet read ahead in proportion to the ranks' speeds."""
        self.speeds = tuple(speeds)
        self.next_parts = parts(self.batches.batch_size, self.size, speeds, self.batches.piece)

    def ahead(self, step: int) -> None:
        """Start to read a step's batch; `part` of that step then waits for what is missing."""
        of = self.batches
        numbers = order.batch(step, of.count, of.batch_size, of.seed)
        self._reading[step] = self.next_parts, self.start(numbers, self.next_parts)

    def part(self, step: int) -> tuple[Images, NDArray[np.int32]]:
        """Images (k, C, H, W), augmented, and labels int32 (k,) of this rank's part of a step."""
        if step not in self._reading:
            self.ahead(step)
        self.current_parts, reading = self._reading.pop(step)
        images, labels = reading.wait()
        if self.batches.ways:
            places = np.arange(self.mine.start, self.mine.stop)
            drawn = augment.draws(places, step, self.batches.seed, self.batches.shape)
            images = augment.augment(images, drawn, self.batches.ways)
        return images, labels
