"""Momentum SGD is its two lines, and the rate moves as it says."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.engine.engine import Engine
from mpitrain.exchange.move import Move
from mpitrain.training.sgd import MomentumSgd, learning_rate


@pytest.mark.parametrize("size", [512, 512 * 37])
def test_an_update_is_the_two_line_equation(device: Engine, size: int) -> None:
    random = np.random.default_rng(0)
    w = random.normal(size=size).astype(np.float32)
    weights = device.upload(np.concatenate([w, w]))
    sgd = MomentumSgd(device, weights, momentum=0.9, weight_decay=5e-4)
    wanted, v = w.astype(np.float64), np.zeros(size)
    for rate in (0.1, 0.01, 0.02):
        g = random.normal(size=size).astype(np.float32)
        sgd.rate = rate
        sgd.update(Move(size, 2 * size, device.upload(g)))
        v = 0.9 * v - rate * (g + 5e-4 * wanted)
        wanted = wanted + v
    found = weights.download()
    np.testing.assert_array_equal(found[:size], w)
    np.testing.assert_allclose(found[size:], wanted, rtol=1e-5, atol=1e-6)


def test_an_update_is_the_same_bytes_as_numpys_in_float32(device: Engine) -> None:
    """One rounding for each operation, so ranks with unlike devices stay equal."""
    random = np.random.default_rng(1)
    w, g = (random.normal(size=517 // 512 * 512).astype(np.float32) for _ in range(2))
    weights = device.upload(w)
    sgd = MomentumSgd(device, weights, momentum=0.9, weight_decay=1e-4)
    sgd.rate, v = 0.03, np.zeros_like(w)
    rate, momentum, decay = np.float32(0.03), np.float32(0.9), np.float32(1e-4)
    for _ in range(3):
        sgd.update(Move(0, w.size, device.upload(g)))
        v = momentum * v - rate * (g + decay * w)
        w = w + v
    np.testing.assert_array_equal(weights.download(), w)


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
