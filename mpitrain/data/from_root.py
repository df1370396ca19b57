"""Rank 0 reads each batch and sends every rank its part, while the step before is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.dataset import Images, Split
from mpitrain.data.feed import Batches, Feed, Reading


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
    """Only rank 0 needs to reach the data."""

    def __init__(self, scatter: Scatters, batches: Batches, split: Split | None) -> None:
        """split: the training images on rank 0; None on the others."""
        super().__init__(scatter.rank, scatter.size, batches)
        self._scatter, self._split = scatter, split

    def start(self, numbers: NDArray[np.int64], parts: Sequence[slice]) -> Reading:
        images = labels = None
        if self._split is not None:
            images, wide = self._split.read(numbers)
            labels = wide.astype(np.int32)
        shape, dtype = self.batches.shape, np.dtype(self.batches.dtype)
        return self._scatter.start(images, labels, parts, shape, dtype)
