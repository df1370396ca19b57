"""Residuals of any number of ranks, handed on to any other: what was left out of the sum is left
out of it still."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.residuals import Residuals, as_sender, places

BUCKETS = [
    Bucket(0, 512, 2560, True),
    Bucket(1, 0, 512, False),
    Bucket(2, 2560, 3072, True),
    Bucket(3, 3072, 9728, True),
]
LENGTHS = [bucket.stop - bucket.start for bucket in BUCKETS if bucket.coded]
IMAGES = 8


def owners(size: int) -> bool:
    return size > 2


@pytest.mark.parametrize(("before", "now"), list(product((2, 3, 4, 8), repeat=2)))
def test_what_was_left_out_stays_what_it_was_value_by_value(before: int, now: int) -> None:
    """With small whole numbers sums are exact."""
    random, total = np.random.default_rng(before), sum(LENGTHS)
    sent = random.integers(-9, 9, (before, total)).astype(np.float32)
    owned = random.integers(-9, 9, total).astype(np.float32) * owners(before)
    left = sent.sum(axis=0) + IMAGES * owned

    def read(kind: str, rank: int, start: int, stop: int) -> np.ndarray:
        if kind == "sender":
            return sent[rank, start:stop]
        mine = [owned[first:last] for first, last in places(LENGTHS, rank, before)]
        return np.concatenate(mine)[start:stop]

    old = Residuals(read, BUCKETS, before, owners(before), IMAGES)
    found, cut = np.zeros(total, np.float32), 1000  # pieces that end where no block does
    for rank in range(now):
        for start in range(0, total, cut):
            stop = min(start + cut, total)
            piece = old.sender(rank, now, start, stop, owners(now))
            if now == before:
                np.testing.assert_array_equal(piece, sent[rank, start:stop])
            found[start:stop] += piece
        mine = old.owner(rank, now)
        at = 0
        for first, last in places(LENGTHS, rank, now):
            np.testing.assert_array_equal(mine[at : at + last - first], owned[first:last])
            found[first:last] += IMAGES * mine[at : at + last - first]
            at += last - first
        assert at == mine.size
    np.testing.assert_array_equal(found, left)


def test_where_nothing_was_coded_nothing_was_left_out() -> None:
    old = Residuals(lambda *_: pytest.fail("read"), BUCKETS, 0, False, IMAGES)
    assert not old.sender(0, 4, 0, 1000, True).any() and not old.owner(1, 4).any()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_one_rank_can_send_all_that_it_has_left_out(size: int) -> None:
    random, total = np.random.default_rng(size), sum(LENGTHS)
    owned = random.integers(-9, 9, total).astype(np.float32) * owners(size)
    found = np.zeros(total, np.float32)
    for rank in range(size):
        sent = random.integers(-9, 9, total).astype(np.float32)
        mine = [owned[first:last] for first, last in places(LENGTHS, rank, size) if owners(size)]
        owner = np.concatenate([np.zeros(0, np.float32), *mine])
        before = sent.copy()
        found += as_sender(sent, owner, LENGTHS, rank, size, IMAGES) - sent
        np.testing.assert_array_equal(sent, before)
    np.testing.assert_array_equal(found, IMAGES * owned)
