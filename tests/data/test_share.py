"""Parts of a batch."""

import itertools

import pytest

from mpitrain.data.share import parts
from mpitrain.job.errors import UserError

SPEEDS = [
    None,
    [1, 1, 1, 1],
    [1, 2, 3, 4],
    [0.1, 0.1, 0.1, 0.7],
    [1e-300, 1, 1e300, 5],
    [1e9, 1, 1, 1],
]


def lengths(count, size, speeds=None):
    return [part.stop - part.start for part in parts(count, size, speeds)]


@pytest.mark.parametrize("speeds", SPEEDS)
@pytest.mark.parametrize("count", [4, 5, 7, 64, 1000])
def test_parts_in_rank_order_are_the_batch(count, speeds):
    batch = list(range(count))
    shares = [batch[part] for part in parts(count, 4, speeds)]
    assert list(itertools.chain(*shares)) == batch
    assert all(shares)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_equal_parts_differ_by_at_most_one(size):
    for count in range(size, 4 * size + 3):
        assert max(lengths(count, size)) - min(lengths(count, size)) <= 1
        assert lengths(count, size) == sorted(lengths(count, size), reverse=True)


def test_equal_speeds_give_equal_parts():
    assert parts(65, 4, [0.1] * 4) == parts(65, 4)


def test_parts_are_in_proportion_to_speed():
    assert lengths(100, 3, [1, 2, 7]) == [10, 20, 70]
    assert lengths(10, 3, [1, 1, 1.5]) == [3, 3, 4]
    assert lengths(256, 2, [30.0, 90.0]) == [64, 192]


def test_no_part_is_off_by_a_whole_image():
    for count in range(40, 90):
        quotas = [count * speed / 11.5 for speed in (1, 2.5, 3, 5)]
        assert all(
            abs(got - quota) < 1
            for got, quota in zip(lengths(count, 4, [1, 2.5, 3, 5]), quotas, strict=True)
        )


def test_the_slowest_rank_still_gets_an_image():
    assert lengths(5, 4, [1e9, 1, 1, 1]) == [2, 1, 1, 1]


def test_more_ranks_than_images_is_an_error():
    with pytest.raises(UserError, match="3 images for 4 ranks; expected at least one"):
        parts(3, 4)


@pytest.mark.parametrize(
    "speeds", [[1], [1, 2, 3], [1, 0], [1, float("nan")], [float("inf"), 1], [-1, 1]]
)
def test_speeds_are_one_positive_number_a_rank(speeds):
    with pytest.raises(ValueError, match="2 positive numbers"):
        parts(10, 2, speeds)
