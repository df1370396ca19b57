"""Speeds from seconds, and who is named."""

from __future__ import annotations

import pytest

from mpitrain.data.share import parts
from mpitrain.training.hooks.balance import EVERY, FIRST, WARM, Balance, straggler


def found_after(balance: Balance, steps: int, images: list[int], each: list[float]) -> list[int]:
    """Which of so many steps said something."""
    seconds = [count * time for count, time in zip(images, each, strict=True)]
    return [step for step in range(steps) if balance.note(images, seconds) is not None]


def test_it_speaks_seldom() -> None:
    steps = WARM + FIRST + 2 * EVERY
    assert found_after(Balance(), steps, [4, 4], [0.1, 0.2]) == [
        WARM + FIRST - 1,
        WARM + FIRST + EVERY - 1,
        steps - 1,
    ]


def test_the_first_measurement_is_taken_and_later_ones_halfway() -> None:
    balance = Balance()
    found_after(balance, WARM + FIRST, [4, 4], [0.1, 0.2])
    assert balance.speeds == pytest.approx((10, 5))
    found_after(balance, EVERY, [4, 4], [0.1, 0.05])
    assert balance.speeds == pytest.approx((10, 10))


def test_the_cost_is_said_as_it_is_logged() -> None:
    """47.2451 in the log's three digits is halfway between two whole percents: words made of it
    before and after differ."""
    balance = Balance()
    found_after(balance, WARM + FIRST - 1, [1, 1], [1.0, 48.2451])
    found = balance.note([1, 1], [1.0, 48.2451])
    assert found is not None
    assert (found.straggler, found.cost) == (1, 47.245)


def test_a_run_that_goes_on_starts_from_what_was_known() -> None:
    balance = Balance([10.0, 40.0])
    found_after(balance, WARM + FIRST, [4, 4], [0.1, 0.1])
    assert balance.speeds == pytest.approx((10, 20))


@pytest.mark.parametrize(
    ("images", "each", "rank", "cost"),
    [
        ([4, 4, 4], [0.1, 0.1, 0.15], 2, 0.5),
        ([4, 4, 4], [0.1, 0.1, 0.1], 0, 0.0),
        ([4, 4], [0.2, 0.1], 0, 1.0),
        ([8], [0.2], 0, 0.0),
        ([8, 4], [0.1, 0.2], 0, 0.0),  # slower, and with so much less to do that nobody waits
    ],
)
def test_the_cost_of_a_rank_is_what_the_others_wait(
    images: list[int], each: list[float], rank: int, cost: float
) -> None:
    assert straggler(images, each) == (rank, pytest.approx(cost))


def test_parts_in_proportion_cost_nothing() -> None:
    each = [0.1, 0.3, 0.1, 0.2]
    lengths = [part.stop - part.start for part in parts(1000, 4, [1 / time for time in each])]
    assert straggler(lengths, each)[1] < 0.01
