"""The order of the images: a step in, its sample numbers out, the same on every rank."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.errors import UserError

STREAM = 0x6F72646572
"""Makes these random numbers independent of others from the same seed."""


def batch(step: int, n: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Sample numbers int64 (batch_size,), read-only, of step 0, 1, ..: the same on every rank.

    The numbers of an epoch are a permutation of 0 .. n - 1 that follows from (seed, epoch); the
    last n % batch_size of them are not used in that epoch. Raises UserError if n < batch_size.
    """
    epoch, place = divmod(step, steps_per_epoch(n, batch_size))
    return permutation(n, seed, epoch)[place * batch_size : (place + 1) * batch_size]


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Whole batches in n images. Raises UserError if there is none."""
    if batch_size < 1:
        raise UserError(f"a batch of {batch_size} images; expected at least 1")
    if n < batch_size:
        raise UserError(
            f"a batch of {batch_size} images; expected at most the {n} images of the training set"
        )
    return n // batch_size


@lru_cache(maxsize=2)  # this epoch's, and the next one's while its first batch is read ahead
def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The numbers 0 .. n - 1 in the order of an epoch, int64 (n,), read-only."""
    order = (
        np.random.Generator(np.random.PCG64((STREAM, seed, epoch)))
        .permutation(n)
        .astype(np.int64, copy=False)
    )
    order.flags.writeable = False
    return order
