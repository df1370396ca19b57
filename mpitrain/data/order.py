"""The order of the images: a step in, the sample numbers of its batch out, the same on every rank
unasked."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.errors import UserError

STREAM = 0x6F72646572
"""Keeps these draws apart from the other draws of a seed."""


def batch(step: int, n: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Sample numbers int64 (batch_size,) of step 0, 1, ..: a pure function of its arguments,
    read-only.

    Every epoch is a permutation of 0 .. n - 1 from (seed, epoch); its last n % batch_size numbers
    sit out that epoch. Raises UserError if n < batch_size.
    """
    epoch, place = divmod(step, steps_per_epoch(n, batch_size))
    return permutation(n, seed, epoch)[place * batch_size : (place + 1) * batch_size]


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Whole batches in n images; UserError if there is none."""
    if batch_size < 1:
        raise UserError(f"a batch of {batch_size} images; expected at least 1")
    if n < batch_size:
        raise UserError(
            f"a batch of {batch_size} images; expected at most the {n} images of the training set"
        )
    return n // batch_size


@lru_cache(
    maxsize=2
)  # the epoch that goes on, and the next one while its first batch is read ahead
def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """0 .. n - 1 in the order of an epoch, int64 (n,), read-only."""
    order = (
        np.random.Generator(np.random.PCG64((STREAM, seed, epoch)))
        .permutation(n)
        .astype(np.int64, copy=False)
    )
    order.flags.writeable = False
    return order
