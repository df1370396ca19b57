"""Dropout: the share it drops, what its draws depend on and what not."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers.dropout import Dropout

SHAPE = (3, 7, 211)  # more than one work-item's values, and odd


def ones(images):
    return np.ones((images, *SHAPE), np.float32)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_it_drops_a_share_p_and_scales_the_rest(bench, p):
    y = bench(Dropout(p), SHAPE).forward(ones(3), seed=5)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)], rtol=1e-6)
    spread = np.sqrt(p * (1 - p) / y.size)
    assert abs((y == 0).mean() - p) < 4 * spread


@pytest.mark.parametrize("in_place", [False, True])
def test_the_way_back_draws_the_same(bench, in_place):
    x, dy = np.random.default_rng(1).normal(size=(2, 3, *SHAPE)).astype(np.float32)
    trial = bench(Dropout(0.4), SHAPE)
    y = trial.forward(x, in_place=in_place, seed=9, first=2)
    (dx,) = trial.backward(dy, in_place=in_place)
    np.testing.assert_allclose(y, np.where(y == 0, 0, x / 0.6), rtol=1e-6)
    np.testing.assert_allclose(dx, np.where(y == 0, 0, dy / 0.6), rtol=1e-6)


def test_a_split_batch_draws_as_the_whole(bench):
    whole = bench(Dropout(), SHAPE, images=5).forward(ones(5), seed=3, first=10)
    front = bench(Dropout(), SHAPE, images=2).forward(ones(2), seed=3, first=10)
    back = bench(Dropout(), SHAPE, images=3).forward(ones(3), seed=3, first=12)
    np.testing.assert_array_equal(whole, np.concatenate([front, back]))


def test_steps_layers_and_images_draw_for_themselves(bench):
    def masks(name="a", seed=3, first=0):
        layer = Dropout()
        layer.name = name
        return list(bench(layer, SHAPE, images=2).forward(ones(2), seed=seed, first=first) > 0)

    draws = masks() + masks(name="b") + masks(seed=4) + masks(first=2) + masks(seed=3 + 2**32)
    for number, one in enumerate(draws):
        for other in draws[:number]:
            assert abs((one == other).mean() - 0.5) < 0.05


def test_every_device_draws_the_same(bench):
    y = bench(Dropout(), (40,), images=1).forward(np.ones((1, 40), np.float32), seed=1, first=1)
    dropped = "".join("01"[int(value > 0)] for value in y[0])
    assert dropped == "1101001110001001010111100111010001110101"


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True)])
def test_it_is_the_identity_when_not_training_and_for_p_zero(bench, p, training, in_place):
    x, dy = np.random.default_rng(1).normal(size=(2, 3, *SHAPE)).astype(np.float32)
    trial = bench(Dropout(p), SHAPE)
    np.testing.assert_array_equal(trial.forward(x, in_place=in_place, training=training), x)
    np.testing.assert_array_equal(trial.backward(dy, in_place=in_place)[0], dy)


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan")])
def test_p_is_a_probability_below_one(p):
    with pytest.raises(UserError, match="p: expected"):
        Dropout(p)
