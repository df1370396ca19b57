"""What every feed promises, with all ranks in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mpitrain.data import order
from mpitrain.data.dataset import Images
from mpitrain.data.feed import DEPTH, Batches, Feed, Part
from mpitrain.data.folder import FolderSplit
from mpitrain.data.from_disk import FromDisk
from mpitrain.data.from_root import FromRoot
from mpitrain.data.view import View
from mpitrain.job.errors import RunError

COUNT, BATCH, SEED = 50, 12, 3
SHAPE = (2, 8, 8)
IMAGES = np.random.default_rng(0).integers(0, 255, (COUNT, *SHAPE)).astype(np.uint8)
LABELS = np.arange(COUNT, dtype=np.int64)


class MadeUp:
    """Images in memory, as a Split."""

    dtype = IMAGES.dtype

    def __len__(self) -> int:
        return COUNT

    def read(
        self, numbers: NDArray[np.int64], view: View | None = None
    ) -> tuple[Images, NDArray[np.int64]]:
        images = IMAGES[numbers]
        return view.of_arrays(images, numbers) if view else images, LABELS[numbers]


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

    def start(self, step: int, parts: Sequence[slice]) -> Callable[[], Part]:
        part = parts[self.rank]
        mine = self.numbers(step)[self.needed(part)]
        return lambda: self.finish(step, part, IMAGES[mine], LABELS[mine].astype(np.int32))


def from_disk(rank: int, size: int, batches: Batches) -> Feed:
    return FromDisk(rank, size, batches, MadeUp())


def from_root(rank: int, size: int, batches: Batches) -> Feed:
    return FromRoot(InOneProcess(rank, size), batches, None if rank else MadeUp())


FEEDS = pytest.mark.parametrize("make", [from_root, from_disk, FromMemory])
Make = Callable[[int, int, Batches], Feed]


def feeds(make: Make, size: int, **more: Any) -> list[Feed]:
    batches = Batches(COUNT, SHAPE, "uint8", BATCH, SEED, **more)
    return [make(rank, size, batches) for rank in range(size)]


def whole(ranks: list[Feed], step: int) -> tuple[Images, NDArray[np.int32]]:
    found = [feed.part(step) for feed in ranks]
    assert all(len(part.images) == len(part.labels) for part in found)
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
    equal, divided = feeds(make, 3), feeds(make, 3, ways=frozenset({"crop", "flip"}))
    plain = feeds(make, 1, ways=frozenset({"crop", "flip"}))
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


@FEEDS
def test_who_looks_at_a_batch_gets_what_comes_and_changes_nothing(make: Make) -> None:
    ranks = feeds(make, 2)
    whole(ranks, 0)
    for feed in ranks:
        feed.ahead(1)
        feed.divide([1.0, 5.0])
    seen = [feed.look(1) for feed in ranks]
    assert [feed.mine for feed in ranks] == [slice(0, 6), slice(6, 12)], "those of the batch before"
    for feed, part in zip(ranks, seen, strict=True):
        assert feed.look(1).images is part.images
        assert feed.part(1).images is part.images


WAYS = frozenset({"resized", "flip", "jitter"})


@pytest.mark.parametrize("make", [from_root, from_disk])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_views_and_blends_do_not_depend_on_who_reads_or_on_the_number_of_ranks(
    make: Make, size: int
) -> None:
    alone = feeds(from_disk, 1, ways=WAYS, mixup=0.4)[0]
    ranks = feeds(make, size, ways=WAYS, mixup=0.4)
    for feed in ranks:
        feed.divide([1.0 + rank for rank in range(size)])
    for step in (0, 1, 5):
        found = [feed.part(step) for feed in ranks]
        whole_batch = alone.part(step)
        np.testing.assert_array_equal(
            np.concatenate([part.images for part in found]), whole_batch.images
        )
        for name in ("others", "shares"):
            parts = [getattr(part.mixed, name) for part in found]
            np.testing.assert_array_equal(np.concatenate(parts), getattr(whole_batch.mixed, name))
    assert not np.array_equal(whole_batch.images, IMAGES[order.batch(5, COUNT, BATCH, SEED)])


def photos(folder: Path, count: int = COUNT) -> FolderSplit:
    """Files of one colour each, whose labels are their numbers."""
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (12, 9), (number, 0, 0)).save(folder / name)
    return FolderSplit(folder, names, np.arange(count), (3, 8, 8))


@pytest.mark.parametrize("disk", [True, False])
def test_photos_are_decoded_ahead_and_none_beyond_the_last_step(
    tmp_path: Path, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = photos(tmp_path)
    seen: list[int] = []
    read = FolderSplit.read

    def noted(self: FolderSplit, numbers: NDArray[np.int64], view: View | None = None) -> Any:
        seen.append(len(numbers))
        return read(self, numbers, view)

    monkeypatch.setattr(FolderSplit, "read", noted)
    batches = Batches(COUNT, (3, 8, 8), "uint8", BATCH, SEED, steps=5)
    feed: Feed = FromDisk(0, 1, batches, split)
    if not disk:
        feed = FromRoot(InOneProcess(0, 1), batches, split)
    feed.ahead(0)
    for step in range(5):
        images, labels, _ = feed.part(step)
        np.testing.assert_array_equal(labels, order.batch(step, COUNT, BATCH, SEED))
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
        if step < 4:
            feed.ahead(step + 1)
        assert len(seen) <= min(step + 1 + DEPTH, 5)
    assert seen == [BATCH] * 5 and feed.seconds > 0
    feed.close()


def test_what_a_reader_finds_on_its_way_ends_the_step_that_needs_it(tmp_path: Path) -> None:
    split = photos(tmp_path)
    gone = int(order.batch(1, COUNT, BATCH, SEED)[3])
    (tmp_path / f"{gone}.png").unlink()
    feed = FromDisk(0, 1, Batches(COUNT, (3, 8, 8), "uint8", BATCH, SEED), split)
    feed.ahead(0)
    assert len(feed.part(0).labels) == BATCH
    with pytest.raises(RunError, match=rf"{gone}\.png: cannot be decoded"):
        feed.part(1)
    feed.close()
