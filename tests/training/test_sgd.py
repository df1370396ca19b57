"""Momentum SGD is its two lines, and Nesterov's is PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.engine.engine import Engine
from mpitrain.exchange.move import Move
from mpitrain.training.sgd import MomentumSgd


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


def test_nesterovs_momentum_is_pytorchs(device: Engine) -> None:
    """torch.optim.SGD(nesterov=True, momentum=0.9, weight_decay=5e-4), written out in float64."""
    random = np.random.default_rng(2)
    w = random.normal(size=512 * 3).astype(np.float32)
    weights, gradient = device.upload(w), device.zeros(w.shape)
    sgd = MomentumSgd(device, weights, momentum=0.9, weight_decay=5e-4, nesterov=True)
    sgd.rate, wanted, kept = 0.03, w.astype(np.float64), np.zeros(w.size)
    for _ in range(4):
        g = random.normal(size=w.size).astype(np.float32)
        gradient.write(g)
        sgd.update(Move(0, w.size, gradient))
        pull = g + 5e-4 * wanted
        kept = 0.9 * kept + pull
        wanted = wanted - 0.03 * (pull + 0.9 * kept)
    np.testing.assert_allclose(weights.download(), wanted, rtol=1e-5, atol=1e-6)


def test_a_step_of_nesterov_is_the_same_bytes_as_numpys_in_float32(device: Engine) -> None:
    random = np.random.default_rng(3)
    w, g = (random.normal(size=523).astype(np.float32) for _ in range(2))
    weights, gradient = device.upload(w), device.upload(g)
    sgd = MomentumSgd(device, weights, momentum=0.9, weight_decay=1e-4, nesterov=True)
    sgd.rate, v = 0.03, np.zeros_like(w)
    rate, momentum, decay = np.float32(0.03), np.float32(0.9), np.float32(1e-4)
    for _ in range(3):
        sgd.update(Move(0, w.size, gradient))
        pull = rate * (g + decay * w)
        v = momentum * v - pull
        w = w + (momentum * v - pull)
    np.testing.assert_array_equal(weights.download(), w)
