"""Read a split ahead of its use: images that must be decoded in the background, others at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.dataset import Images, Labels, Split
from mpitrain.data.decoded import DecodedSplit
from mpitrain.data.view import View

T = TypeVar("T")


class Reader:
    """Carries out what is asked of it one after the other, in the order in which it is asked."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.decodes = isinstance(split, DecodedSplit)
        """Whether reading takes long enough to be worth a thread; it is a copy otherwise."""
        self._thread = ThreadPoolExecutor(1, "read") if self.decodes else None

    def begin(self, work: Callable[[], T]) -> Callable[[], T]:
        """Begin work; the result waits for its result, and raises what it raised."""
        if self._thread is None:
            result = work()
            return lambda: result
        future: Future[T] = self._thread.submit(work)
        return future.result

    def read(self, numbers: NDArray[np.int64], view: View | None = None) -> tuple[Images, Labels]:
        """As the split's own."""
        return self.split.read(numbers, view) if view else self.split.read(numbers)

    @property
    def seconds(self) -> float:
        """CPU seconds of reading and decoding so far."""
        return self.split.seconds if isinstance(self.split, DecodedSplit) else 0.0

    def close(self) -> None:
        """Begin nothing any more; what has begun ends by itself."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
