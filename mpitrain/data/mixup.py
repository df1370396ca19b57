"""Mixup: each training image is blended with its neighbour in the batch, and so are their labels.

x = share * x[place] + (1 - share) * x[place ^ 1], with share ~ Beta(alpha, alpha) for each place.
Neighbours are places 0 and 1, 2 and 3, ...: an epoch is a random permutation, so they are a random
pair, and a rank needs at most one image more at each end of its part. The shares depend only on
(seed, step, place), so images are the same for any number of ranks.
Source: H. Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.dataset import Images

STREAM = 0x6D69787570
"""Makes these random numbers independent of others from the same seed."""


@dataclass(frozen=True)
class Mixed:
    """What k labels are blended with."""

    others: NDArray[np.int32]
    """(k,): the neighbours' labels."""
    shares: NDArray[np.float32]
    """(k,): of the image's own label, from 0 to 1."""

    def __getitem__(self, part: slice) -> Mixed:
        return Mixed(self.others[part], self.shares[part])


def pairs(part: slice, batch: int) -> slice:
    """The places of a part and of their neighbours."""
    return slice(part.start & ~1, min(part.stop + (part.stop & 1), batch))


def mix(
    images: Images,
    labels: NDArray[np.int32],
    part: slice,
    batch: int,
    step: int,
    seed: int,
    alpha: float,
) -> tuple[Images, NDArray[np.int32], Mixed]:
    """Images and labels of `pairs(part, batch)` in; those of `part`, blended, and with what, out.

    The last image of an odd batch has no neighbour, and stays as it is.
    """
    wide = pairs(part, batch)
    random = np.random.Generator(np.random.PCG64((STREAM, seed, step)))
    drawn = random.beta(alpha, alpha, part.stop).astype(np.float32)
    mixed = np.empty((part.stop - part.start, *images.shape[1:]), images.dtype)
    places = np.arange(part.start, part.stop)
    others = np.where((places ^ 1) < batch, places ^ 1, places)
    for out, place, other in zip(mixed, places.tolist(), others.tolist(), strict=True):
        own, theirs = images[place - wide.start], images[other - wide.start]
        x = drawn[place] * own + (1 - drawn[place]) * theirs
        out[:] = np.rint(x) if images.dtype == np.uint8 else x
    mine = labels[places - wide.start]
    return mixed, mine, Mixed(labels[others - wide.start], drawn[places])
