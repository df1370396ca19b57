"""Rank 0 reads each batch and sends every rank its part, while the step before is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.dataset import Images, Labels, Split
from mpitrain.data.feed import DEPTH, Batches, Feed, Part
from mpitrain.data.reader import Reader


class Reading(Protocol):
    """A rank's part of a batch that may still be on its way."""

    def wait(self) -> tuple[Images, NDArray[np.int32]]:
        """Images (k, C, H, W) and labels int32 (k,), when they are here."""


class Scatters(Protocol):
    """What this module needs of the ranks; mpi's Scatter has it."""

    rank: int
    size: int

    def start(
        self,
        images: Images | None,
        labels: NDArray[np.int32] | None,
        parts: Sequence[slice],
        shape: tuple[int, ...],
        dtype: Any,
    ) -> Reading: ...


class FromRoot(Feed):
    """Only rank 0 needs to reach the data. It decodes some batches ahead, and sends one ahead."""

    def __init__(self, scatter: Scatters, batches: Batches, split: Split | None) -> None:
        """split: the training images on rank 0; None on the others."""
        super().__init__(scatter.rank, scatter.size, batches)
        self._scatter = scatter
        self._reader = None if split is None else Reader(split)
        self._begun: dict[int, Callable[[], tuple[Images, Labels]]] = {}

    def start(self, step: int, parts: Sequence[slice]) -> Callable[[], Part]:
        images = labels = None
        if self._reader is not None:
            self._read_ahead(step, self._reader)
            images, wide = self._begun.pop(step)()
            labels = wide.astype(np.int32)
        shape, dtype = self.batches.shape, np.dtype(self.batches.dtype)
        needed = [self.needed(part) for part in parts]
        sent = self._scatter.start(images, labels, needed, shape, dtype)
        return lambda: self.finish(step, parts[self.rank], *sent.wait())

    def _read_ahead(self, step: int, reader: Reader) -> None:
        """Begin to read a step's batch, and those after it if they must be decoded."""
        last = min(step + DEPTH, self.batches.steps) if reader.decodes else step
        for each in range(step, max(last, step + 1)):
            if each not in self._begun:
                read = partial(reader.read, self.numbers(each), self.view(each))
                self._begun[each] = reader.begin(read)

    @property
    def seconds(self) -> float:
        return self._reader.seconds if self._reader else 0.0

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
