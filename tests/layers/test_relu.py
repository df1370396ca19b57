"""Relu and Relu6 against NumPy."""

import numpy as np
import pytest

from mpitrain.layers.relu import Relu, Relu6

SHAPES = [(1,), (3, 5, 7), (2, 40, 60)]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_cuts_negative_values_and_their_gradient(bench, shape, in_place):
    x, dy = np.random.default_rng(1).normal(size=(2, 3, *shape)).astype(np.float32)
    x.flat[0] = 0
    trial = bench(Relu(), shape)
    np.testing.assert_array_equal(trial.forward(x, in_place=in_place), np.maximum(x, 0))
    (dx,) = trial.backward(dy, in_place=in_place)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, 0))


def test_the_gradient_is_the_slope(bench, numerical):
    x, dy = np.random.default_rng(1).normal(size=(2, 3, 2, 3, 3))
    trial = bench(Relu(), (2, 3, 3))
    trial.forward(x)
    np.testing.assert_allclose(
        trial.backward(dy)[0], numerical(lambda x: np.maximum(x, 0), x, dy), rtol=1e-5, atol=1e-6
    )


def test_nan_stays_nan(bench):
    x = np.full((3, 21), np.nan, np.float32)
    assert np.isnan(bench(Relu(), (21,)).forward(x)).all()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_relu6_cuts_at_both_ends(bench, shape, in_place):
    x, dy = np.random.default_rng(1).normal(scale=6, size=(2, 3, *shape)).astype(np.float32)
    x.flat[:2] = 0, 6
    trial = bench(Relu6(), shape)
    np.testing.assert_array_equal(trial.forward(x, in_place=in_place), np.clip(x, 0, 6))
    (dx,) = trial.backward(dy, in_place=in_place)
    np.testing.assert_array_equal(dx, np.where((x > 0) & (x < 6), dy, 0))


def test_relu6s_gradient_is_the_slope_and_nan_stays(bench, numerical):
    x, dy = np.random.default_rng(1).normal(scale=6, size=(2, 3, 2, 3, 3))
    trial = bench(Relu6(), (2, 3, 3))
    trial.forward(x)
    wanted = numerical(lambda x: np.clip(x, 0, 6), x, dy)
    np.testing.assert_allclose(trial.backward(dy)[0], wanted, rtol=1e-5, atol=1e-6)
    assert np.isnan(trial.forward(np.full(x.shape, np.nan, np.float32))).all()
