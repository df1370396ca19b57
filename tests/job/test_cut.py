"""Parts of whole numbers: together they are the whole, and as even as can be."""

from __future__ import annotations

import pytest

from mpitrain.job.cut import even, parts, round_up, shard_lengths, shards


@pytest.mark.parametrize(("whole", "each"), [(0, 4), (1, 4), (4, 4), (5, 4), (2**40 + 1, 512)])
def test_parts_cover_the_whole_and_one_less_would_not(whole: int, each: int) -> None:
    count = parts(whole, each)
    assert (count - 1) * each < whole <= count * each or whole == count == 0
    assert round_up(whole, each) == count * each


def test_even_parts_are_as_few_as_the_largest_ones_and_no_larger_than_needed() -> None:
    assert even(10, 4) == 4
    assert even(9, 8) == 5
    assert even(8, 8) == 8


@pytest.mark.parametrize(("count", "size"), [(0, 3), (2, 5), (37, 8), (4096, 3), (7, 1)])
def test_shards_are_the_whole_once_and_in_rank_order(count: int, size: int) -> None:
    cuts = shards(count, size)
    assert [place for start, stop in cuts for place in range(start, stop)] == list(range(count))
    lengths = shard_lengths(count, size)
    assert lengths == [stop - start for start, stop in cuts]
    assert max(lengths) - min(lengths) <= 1
