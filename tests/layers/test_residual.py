"""A batch normalisation with its shortcut against the two layers it stands for."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers.add import Add
from mpitrain.layers.batchnorm import BatchNorm
from mpitrain.layers.residual import BatchNormAdd

SHAPES = [(3, 1, 1), (4, 5, 7), (33, 9, 6)]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_sum_of_both(bench, shape, rectify, in_place):
    random = np.random.default_rng(7)
    shortcut, x, dy = random.normal(size=(3, 6, *shape)).astype(np.float32) + 0.1
    layer = BatchNormAdd.of(BatchNorm(0.3, 1e-3))
    if rectify:
        layer.rectify, layer.keeps = True, (*layer.keeps, "y")
    trial = bench(layer, shape, shape, images=6)
    norm, add = bench(BatchNorm(0.3, 1e-3), shape, images=6), bench(Add(), shape, shape, images=6)
    values = random.normal(size=(2, shape[0])).astype(np.float32)
    for each in (trial, norm):
        each.set("weight", values[0])
        each.set("bias", values[1])

    wanted = add.forward(shortcut, norm.forward(x))
    wanted = np.maximum(wanted, 0) if rectify else wanted
    y = trial.forward(shortcut, x, in_place=in_place)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(trial.get(name), norm.get(name))

    passed = np.where(y > 0, dy, np.float32(0)) if rectify else dy
    (expected,) = norm.backward(passed)
    first, second = trial.backward(dy, in_place=in_place)
    np.testing.assert_array_equal(first, passed)
    np.testing.assert_array_equal(second, expected)
    for name in ("dweight", "dbias"):
        np.testing.assert_array_equal(trial.get(name), norm.get(name))


def test_evaluation_adds_the_shortcut_too(bench):
    shortcut, x = np.random.default_rng(1).normal(size=(2, 6, 4, 5, 7)).astype(np.float32)
    trial = bench(BatchNormAdd(), (4, 5, 7), (4, 5, 7), images=6)
    norm = bench(BatchNorm(), (4, 5, 7), images=6)
    y = trial.forward(shortcut, x, training=False)
    np.testing.assert_allclose(y, norm.forward(x, training=False) + shortcut, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_a_dx_that_nobody_wants_is_left_out(bench, wanted):
    shortcut, x, dy = np.random.default_rng(1).normal(size=(3, 6, 4, 5, 7)).astype(np.float32)
    trial, norm = (
        bench(BatchNormAdd(), (4, 5, 7), (4, 5, 7), images=6),
        bench(BatchNorm(), (4, 5, 7), images=6),
    )
    trial.forward(shortcut, x)
    norm.forward(x)
    both = [dy, *norm.backward(dy)]
    found = trial.backward(dy, wanted=wanted)
    for dx, each in zip(
        found, (each for each, want in zip(both, wanted, strict=True) if want), strict=True
    ):
        np.testing.assert_array_equal(dx, each)


def test_values_of_different_shapes_are_refused():
    with pytest.raises(UserError, match=r"one shape, got \(8, 4, 4\) and \(8, 2, 2\)"):
        BatchNormAdd().output_shape((8, 4, 4), (8, 2, 2))
