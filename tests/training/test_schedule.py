"""The rate moves as its schedule says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mpitrain.training.schedule import learning_rate
from mpitrain.training.world import World

MakeWorld = Callable[..., World]


def test_the_rate_warms_up_and_follows_its_schedule() -> None:
    def rates(schedule: str) -> list[float]:
        return [learning_rate(t, 104, 0.4, schedule, 4) for t in range(104)]

    for schedule in ("constant", "step", "cosine"):
        np.testing.assert_allclose(rates(schedule)[:4], [0.1, 0.2, 0.3, 0.4])
    assert set(rates("constant")[4:]) == {0.4}
    np.testing.assert_allclose(
        [rates("step")[t] for t in (53, 54, 78, 79, 103)], [0.4, 0.04, 0.04, 0.004, 0.004]
    )
    cosine = rates("cosine")[4:]
    assert (
        cosine[0] == 0.4
        and cosine[50] == pytest.approx(0.2)
        and cosine == sorted(cosine, reverse=True)
    )
    assert 0 < cosine[-1] < 0.001


def test_a_line_and_a_power_go_down_to_nothing() -> None:
    left = 1 - np.arange(100) / 100
    for schedule, argument, power in [
        ("linear", "", 1), ("polynomial", "", 2), ("polynomial", "0.5", 0.5),
    ]:  # fmt: skip
        found = [learning_rate(t, 104, 0.4, schedule, 4, argument) for t in range(4, 104)]
        np.testing.assert_allclose(found, 0.4 * left**power, rtol=1e-12)


def test_steps_and_epochs_at_which_the_rate_becomes_a_tenth() -> None:
    """As PyTorch's MultiStepLR has them: counted from the run's beginning, the warm-up included."""
    rates = [learning_rate(t, 100, 0.4, "step", 2, "10,3ep", per_epoch=20) for t in range(100)]
    np.testing.assert_allclose(rates[:2], [0.2, 0.4])
    np.testing.assert_allclose(rates[2:10], 0.4)
    np.testing.assert_allclose(rates[10:60], 0.04)
    np.testing.assert_allclose(rates[60:], 0.004)


def test_a_plan_takes_the_warm_up_in_epochs(make_world: MakeWorld) -> None:
    plan = make_world(epochs=4, warmup="2ep", schedule="polynomial:3").plan
    per_epoch = plan.prepared.per_epoch
    assert plan.rate(per_epoch) == pytest.approx(0.01 * (per_epoch + 1) / (2 * per_epoch))
    assert plan.rate(3 * per_epoch) == pytest.approx(0.01 * 0.5**3)
