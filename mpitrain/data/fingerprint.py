"""Whether two ranks see the same data: a dataset in, a digest out.

It covers the listing (names, places and labels of all images) and the pixels of a few, spread over
each split: so it tells another folder of the same name, a copy that is not finished, and a decoder
that gives other pixels.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mpitrain.data.dataset import ArraySplit, Dataset, Split
from mpitrain.data.decoded import DecodedSplit
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
    digest = hashlib.sha256(str(len(split)).encode())
    if isinstance(split, DecodedSplit):
        for name in split.names:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    if isinstance(split, ArraySplit | DecodedSplit):
        digest.update(split.labels.tobytes())
    for number in np.unique(np.linspace(0, len(split) - 1, SAMPLED).astype(np.int64)):
        digest.update(_pixels(split, number))
    return digest.digest()


def _pixels(split: Split, number: Any) -> bytes:
    """An image's; nothing of one that cannot be read: the run will say so in its own time."""
    try:
        return split.read(np.array([number]))[0].tobytes()
    except MpitrainError:
        return b"unreadable"
