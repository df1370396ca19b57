"""Each rank reads its own part of each batch: nothing but sample numbers is shared, and those every
rank knows by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mpitrain.data.dataset import Split
from mpitrain.data.feed import DEPTH, Batches, Feed, Part
from mpitrain.data.reader import Reader


class FromDisk(Feed):
    """Every rank reaches the same data."""

    def __init__(self, rank: int, size: int, batches: Batches, split: Split) -> None:
        super().__init__(rank, size, batches)
        self._reader = Reader(split)
        self.depth = DEPTH if self._reader.decodes else 1

    def start(self, step: int, parts: Sequence[slice]) -> Callable[[], Part]:
        part = parts[self.rank]
        numbers, view = self.numbers(step)[self.needed(part)], self.view(step)

        def read() -> Part:
            images, labels = self._reader.read(numbers, view)
            return self.finish(step, part, images, labels.astype(np.int32))

        return self._reader.begin(read)

    @property
    def seconds(self) -> float:
        return self._reader.seconds

    def close(self) -> None:
        self._reader.close()
