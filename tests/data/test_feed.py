"""What every feed promises, with all ranks in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpitrain.data import augment, order
from mpitrain.data.dataset import Images
from mpitrain.data.feed import Batches, Feed, Reading
from mpitrain.data.from_root import FromRoot

COUNT, BATCH, SEED = 50, 12, 3
SHAPE = (2, 8, 8)
IMAGES = np.random.default_rng(0).integers(0, 255, (COUNT, *SHAPE)).astype(np.uint8)
LABELS = np.arange(COUNT, dtype=np.int64)


class MadeUp:
    """Images in memory, as a Split."""

    dtype = IMAGES.dtype

    def __len__(self) -> int:
        return COUNT

    def read(self, numbers: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
        return IMAGES[numbers], LABELS[numbers]


class Here:
    """A part that has arrived."""

    def __init__(self, images: Images, labels: NDArray[np.int32]) -> None:
        self._part = images, labels

    def wait(self) -> tuple[Images, NDArray[np.int32]]:
        return self._part


class InOneProcess:
    """mpi's Scatter for ranks that take turns in one process: rank 0 comes first."""

    sent: tuple[Images, NDArray[np.int32]]

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def start(
        self,
        images: Images | None,
        labels: NDArray[np.int32] | None,
        parts: Sequence[slice],
        shape: tuple[int, ...],
        dtype: Any,
    ) -> Here:
        assert (images is not None) == (self.rank == 0)
        if images is not None and labels is not None:
            assert images.shape[1:] == shape and images.dtype == dtype
            InOneProcess.sent = images, labels
        images, labels = InOneProcess.sent
        return Here(images[parts[self.rank]], labels[parts[self.rank]])


class FromMemory(Feed):
    """The smallest feed: each rank reads its own part."""

    def start(self, numbers: NDArray[np.int64], parts: Sequence[slice]) -> Reading:
        mine = numbers[parts[self.rank]]
        return Here(IMAGES[mine], LABELS[mine].astype(np.int32))


def from_root(rank: int, size: int, batches: Batches) -> Feed:
    return FromRoot(InOneProcess(rank, size), batches, None if rank else MadeUp())


FEEDS = pytest.mark.parametrize("make", [from_root, FromMemory])
Make = Callable[[int, int, Batches], Feed]


def feeds(make: Make, size: int, **more: Any) -> list[Feed]:
    batches = Batches(COUNT, SHAPE, "uint8", BATCH, SEED, **more)
    return [make(rank, size, batches) for rank in range(size)]


def whole(ranks: list[Feed], step: int) -> tuple[Images, NDArray[np.int32]]:
    found = [feed.part(step) for feed in ranks]
    assert all(len(images) == len(labels) for images, labels in found)
    return np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])


@FEEDS
@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_the_parts_in_rank_order_are_the_batch(make: Make, size: int) -> None:
    ranks = feeds(make, size)
    for step in range(6):  # more than an epoch
        images, labels = whole(ranks, step)
        numbers = order.batch(step, COUNT, BATCH, SEED)
        np.testing.assert_array_equal(images, IMAGES[numbers])
        np.testing.assert_array_equal(labels, LABELS[numbers])
        assert labels.dtype == np.int32


@FEEDS
def test_the_parts_of_another_division_are_the_same_batch(make: Make) -> None:
    equal, divided = feeds(make, 3), feeds(make, 3, ways=frozenset(augment.WAYS))
    plain = feeds(make, 1, ways=frozenset(augment.WAYS))
    for feed in divided:
        feed.divide([1.0, 2.0, 3.0])
    assert [len(feed.part(1)[1]) for feed in equal] == [4, 4, 4]
    augmented, labels = whole(divided, 1)
    assert [feed.mine for feed in divided] == [slice(0, 2), slice(2, 6), slice(6, 12)]
    np.testing.assert_array_equal(labels, whole(plain, 1)[1])
    np.testing.assert_array_equal(augmented, whole(plain, 1)[0])


@FEEDS
def test_a_batch_that_is_read_ahead_keeps_its_division(make: Make) -> None:
    ranks = feeds(make, 2)
    for feed in ranks:
        feed.ahead(1)
    for feed in ranks:
        feed.divide([1.0, 5.0])
    assert [len(feed.part(1)[1]) for feed in ranks] == [6, 6]
    assert [len(feed.part(2)[1]) for feed in ranks] == [2, 10]
    assert [feed.mine for feed in ranks] == [slice(0, 2), slice(2, 12)]
