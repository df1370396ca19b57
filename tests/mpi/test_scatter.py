"""Rank 0's batches reach every rank, a part each."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.job.cut import shards
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

mpi = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@mpi
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_parts_of_batches_arrive_ahead_of_their_use(wire: Wire, dtype: type) -> None:
    shape, count = (3, 4, 5), 5 * wire.ranks.size + 2
    parts = [slice(start, stop) for start, stop in shards(count, wire.ranks.size)]
    mine = parts[wire.ranks.rank]

    def batch(t: int) -> tuple[np.ndarray, np.ndarray]:
        images = np.random.default_rng(t).integers(0, 255, (count, *shape)).astype(dtype)
        return images, np.arange(count, dtype=np.int32) + t

    before = wire.bytes_sent
    started = [
        wire.scatter.start(
            *(batch(t) if wire.ranks.rank == 0 else (None, None)), parts, shape, dtype
        )
        for t in range(4)
    ]
    sent = wire.bytes_sent - before
    for t, part in enumerate(started):
        images, labels = part.wait()
        np.testing.assert_array_equal(images, batch(t)[0][mine])
        np.testing.assert_array_equal(labels, batch(t)[1][mine])
    others = count - (mine.stop - mine.start)
    assert sent == (4 * others * (60 * np.dtype(dtype).itemsize + 4) if wire.ranks.rank == 0 else 0)
