"""Whether two ranks see the same data: a dataset in, a digest out.

It covers what each split is known by (`identity`) and the pixels of a few images spread over it: so
it tells another folder of the same name, a copy that is not finished, and a decoder that gives
other pixels.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mpitrain.data.dataset import Dataset, Split
from mpitrain.job.errors import MpitrainError

SAMPLED = 8
"""Images of a split whose pixels count."""


def fingerprint(data: Dataset) -> str:
    """The same on two ranks whose images have the same numbers, labels and, as far as it looks,
    pixels."""
    digest = hashlib.sha256(repr((data.shape, data.classes)).encode())
    for split in (data.train, data.test):
        digest.update(b"split" if split is None else _of_split(split))
    return digest.hexdigest()


def _of_split(split: Split) -> bytes:
    digest = hashlib.sha256(f"{len(split)} {split.identity()}".encode())
    for number in np.unique(np.linspace(0, len(split) - 1, SAMPLED).astype(np.int64)):
        digest.update(_pixels(split, number))
    return digest.digest()


def _pixels(split: Split, number: Any) -> bytes:
    """An image's; nothing of one that cannot be read: the run will say so in its own time."""
    try:
        return split.read(np.array([number]))[0].tobytes()
    except MpitrainError:
        return b"unreadable"
