"""The seam of the data: each step's images and labels on each rank, read ahead of their use.

Every rank derives a step's sample numbers (order.py) and every rank's part of them (share.py) by
itself. A new way to read is a class in a file of its own that overrides `start`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpitrain.data import augment, mixup, order
from mpitrain.data.dataset import Images, Shape
from mpitrain.data.mixup import Mixed
from mpitrain.data.share import parts
from mpitrain.data.view import View

DEPTH = 3
"""Batches that are decoded ahead: one for the step that comes next, and more for images that take
longer than others."""


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
    """Augmentation, of augment.WAYS."""
    mixup: float = 0.0
    """alpha of mixup; 0: none."""
    steps: int = 1 << 62
    """Of the whole run: nothing is read beyond the last one."""
    piece: int = 1
    """Images that are not divided between ranks; only the last piece of a batch may have fewer."""


class Part(NamedTuple):
    """A rank's part of a batch."""

    images: Images
    """(k, C, H, W), augmented."""
    labels: NDArray[np.int32]
    """(k,)"""
    mixed: Mixed | None = None
    """What labels are blended with, where images are."""


class Feed:
    """This rank's part of each step's batch: the ranks' parts, in rank order, are the batch.

    All ranks call `ahead`, `part` and `divide` in the same order, and `look` where they like.
    """

    depth = 1
    """How many batches `ahead` starts to read."""

    def __init__(self, rank: int, size: int, batches: Batches) -> None:
        self.batches = batches
        self.next_parts = parts(batches.batch_size, size, piece=batches.piece)
        """How the batches whose reading starts from now on are divided, a slice for each rank."""
        self.current_parts = self.next_parts
        """How the batch that `part` returned last is divided."""
        self.speeds: tuple[float, ...] | None = None
        """Images a second of each rank, by which batches are divided; None: equal parts."""
        self.rank, self.size = rank, size
        self._reading: dict[int, tuple[list[slice], Callable[[], Part]]] = {}

    def start(self, step: int, parts: Sequence[slice]) -> Callable[[], Part]:
        """Start to read this rank's part of a step's batch; the result waits for it.

        parts: a slice of the batch for each rank. A subclass overrides this.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Read nothing any more."""

    @property
    def seconds(self) -> float:
        """CPU seconds that this rank's threads have spent on reading and decoding so far."""
        return 0.0

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
        """Start to read a step's batch, and perhaps some after it; `part` of that step then waits
        for what is missing."""
        for each in range(step, min(step + self.depth, max(self.batches.steps, step + 1))):
            if each not in self._reading:
                self._reading[each] = self.next_parts, self.start(each, self.next_parts)

    def look(self, step: int) -> Part:
        """What `part` will return, which waits for it; `ahead` has been called."""
        divided, wait = self._reading[step]
        found = wait()
        self._reading[step] = divided, lambda: found
        return found

    def part(self, step: int) -> Part:
        """This rank's part of a step."""
        if step not in self._reading:
            self.ahead(step)
        self.current_parts, wait = self._reading.pop(step)
        return wait()

    # -- what subclasses start with

    def numbers(self, step: int) -> NDArray[np.int64]:
        """The sample numbers (batch_size,) of a step."""
        of = self.batches
        return order.batch(step, of.count, of.batch_size, of.seed)

    def view(self, step: int) -> View | None:
        """How each image is looked at in the epoch of a step; None: as it is."""
        of = self.batches
        resized, jitter = "resized" in of.ways, "jitter" in of.ways
        if not (resized or jitter):
            return None
        epoch = step // order.steps_per_epoch(of.count, of.batch_size)
        return View(of.seed, epoch, of.shape, resized, jitter)

    def needed(self, part: slice) -> slice:
        """The places whose images a part is made of."""
        return mixup.pairs(part, self.batches.batch_size) if self.batches.mixup else part

    def finish(self, step: int, part: slice, images: Images, labels: NDArray[np.int32]) -> Part:
        """A part of a batch from the images and labels of `needed(part)`."""
        of, wide = self.batches, self.needed(part)
        if of.ways & {"crop", "flip"}:
            drawn = augment.draws(np.arange(wide.start, wide.stop), step, of.seed, of.shape)
            images = augment.augment(images, drawn, of.ways)
        if not of.mixup:
            return Part(images, labels)
        return Part(*mixup.mix(images, labels, part, of.batch_size, step, of.seed, of.mixup))
