"""Which classes images were taken for: a count for each pair of true and found class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore:
    """How one class fared."""

    images: int
    """Of this class."""
    top1: float | None
    """Share of them that were found to be of it (recall); None without images."""
    precision: float | None
    """Share of the images found to be of it that are; None if there was none."""


class Confusion:
    """counts int64 (classes, classes): a row for each true class, a column for each found one."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, labels: NDArray[Any], scores: NDArray[Any]) -> None:
        """Count images: labels (n,), scores (n, classes). Of equal scores the first class counts,
        as in top-1; a score that is NaN never does."""
        found = np.nan_to_num(scores.astype(np.float32), nan=-np.inf, posinf=np.inf).argmax(axis=1)
        known = (labels >= 0) & (labels < len(self.counts))
        np.add.at(self.counts, (labels[known], found[known]), 1)

    def classes(self) -> list[ClassScore]:
        """Each class's figures."""
        right, there, found = np.diag(self.counts), self.counts.sum(axis=1), self.counts.sum(axis=0)
        return [
            ClassScore(int(images), _share(hits, images), _share(hits, taken))
            for hits, images, taken in zip(right, there, found, strict=True)
        ]

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """The most frequent ones, as (images, true class, found class), most frequent first."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        places = np.stack(np.unravel_index(order, wrong.shape), axis=1).tolist()
        return [(int(wrong[a, b]), a, b) for a, b in places if wrong[a, b]]


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None
