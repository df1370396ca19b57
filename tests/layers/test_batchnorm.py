"""Batch normalisation against float64 NumPy, whose formulas are PyTorch's."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers import batchnorm
from mpitrain.layers.batchnorm import BatchNorm
from mpitrain.layers.residual import BatchNormAdd

SHAPES = [(5,), (67,), (3, 1, 1), (4, 5, 7), (2, 33, 40)]


def batch(shape, images=6):
    """x with a mean far from zero, and dy."""
    random = np.random.default_rng(len(shape))
    x = (random.normal(size=(images, *shape)) * 2 + 10).astype(np.float32)
    return x, random.normal(size=x.shape).astype(np.float32)


def columns(v):
    """(N, C, H, W) or (N, C) as (C, m) in float64."""
    return np.moveaxis(v.astype(np.float64), 1, 0).reshape(v.shape[1], -1)


def normalise(x, weight, bias, epsilon=1e-5):
    axes = (0, *range(2, x.ndim))
    like = (-1, *[1] * (x.ndim - 2))
    centred = x - x.mean(axes, keepdims=True)
    return weight.reshape(like) * centred / np.sqrt(
        x.var(axes, keepdims=True) + epsilon
    ) + bias.reshape(like)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_normalises_each_channel(bench, shape):
    x, _ = batch(shape)
    trial = bench(BatchNorm(), shape, images=6)
    y = trial.forward(x)
    weight, bias = (trial.get(name).astype(np.float64) for name in ("weight", "bias"))
    np.testing.assert_allclose(
        y, normalise(x.astype(np.float64), weight, bias), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(trial.get("mean"), columns(x).mean(1), rtol=1e-6)
    np.testing.assert_allclose(
        trial.get("inverse"), 1 / np.sqrt(columns(x).var(1) + 1e-5), rtol=1e-5
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_agrees_with_numpy(bench, shape):
    x, dy = batch(shape)
    trial = bench(BatchNorm(), shape, images=6)
    trial.forward(x)
    (dx,) = trial.backward(dy)
    g, c = columns(dy), columns(x)
    inverse = 1 / np.sqrt(c.var(1, keepdims=True) + 1e-5)
    unit = (c - c.mean(1, keepdims=True)) * inverse
    dbias, dweight = g.sum(1), (g * unit).sum(1)
    weight = trial.get("weight").astype(np.float64)[:, None]
    expected = (
        weight * inverse * (g - g.mean(1, keepdims=True) - unit * (g * unit).mean(1, keepdims=True))
    )
    np.testing.assert_allclose(trial.get("dbias"), dbias, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(trial.get("dweight"), dweight, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(columns(dx), expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_the_slope(bench, numerical):
    x, dy = batch((2, 3, 3), images=4)
    trial = bench(BatchNorm(), (2, 3, 3), images=4)
    trial.forward(x)
    (dx,) = trial.backward(dy)
    weight, bias = (trial.get(name).astype(np.float64) for name in ("weight", "bias"))
    np.testing.assert_allclose(
        dx, numerical(lambda x: normalise(x, weight, bias), x, dy), atol=1e-5
    )
    for name, function in (
        ("dweight", lambda v: normalise(x.astype(np.float64), v, bias)),
        ("dbias", lambda v: normalise(x.astype(np.float64), weight, v)),
    ):
        np.testing.assert_allclose(trial.get(name), numerical(function, weight, dy), atol=1e-4)


def test_running_statistics_move_as_pytorchs_do(bench):
    trial = bench(BatchNorm(momentum=0.25), (3, 4, 5), images=6)
    mean, var = np.zeros(3), np.ones(3)
    for factor in (1, 2):
        x = batch((3, 4, 5))[0] * factor
        trial.forward(x)
        mean = 0.75 * mean + 0.25 * columns(x).mean(1)
        var = 0.75 * var + 0.25 * columns(x).var(1, ddof=1)
    np.testing.assert_allclose(trial.get("running_mean"), mean, rtol=1e-5)
    np.testing.assert_allclose(trial.get("running_var"), var, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5, 7), (67, 3, 4)])
def test_a_relu6_taken_on_cuts_at_both_ends(bench, shape):
    """With the kernels that can rectify; the same as one of its own, both ways."""
    x, dy = batch(shape)
    plain, cut = bench(BatchNorm(), shape, images=6), BatchNorm()
    cut.rectify, cut.ceiling = True, 0.75  # well inside what is normalised
    both = bench(cut, shape, images=6)
    y = plain.forward(x)
    np.testing.assert_array_equal(both.forward(x), np.clip(y, 0, np.float32(0.75)))
    assert 0.1 < (y > 0.75).mean() < 0.9 and (y < 0).mean() > 0.1
    np.testing.assert_array_equal(
        both.backward(dy)[0], plain.backward(np.where((y > 0) & (y < 0.75), dy, 0))[0]
    )
    for name in ("dweight", "dbias"):
        np.testing.assert_array_equal(both.get(name), plain.get(name))


def test_a_single_value_gives_the_bias_and_leaves_everything_finite(bench):
    trial = bench(BatchNorm(), (4,), images=1)
    y = trial.forward(np.array([[1, 2, 3, 4]], np.float32))
    np.testing.assert_array_equal(y[0], trial.get("bias"))
    assert np.isfinite(trial.get("running_var")).all()
    assert np.isfinite(trial.backward(np.ones((1, 4)))[0]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_uses_the_running_statistics_and_leaves_them(bench, shape):
    x, _ = batch(shape)
    trial = bench(BatchNorm(epsilon=1e-3), shape, images=6)
    random = np.random.default_rng(4)
    mean = random.normal(size=shape[0]).astype(np.float32)
    var = random.uniform(0.5, 2, size=shape[0]).astype(np.float32)
    trial.set("running_mean", mean)
    trial.set("running_var", var)
    y = trial.forward(x, training=False)
    weight, bias = (trial.get(name).astype(np.float64)[:, None] for name in ("weight", "bias"))
    expected = weight * (columns(x) - mean[:, None]) / np.sqrt(var[:, None] + 1e-3) + bias
    np.testing.assert_allclose(columns(y), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(trial.get("running_mean"), mean)
    np.testing.assert_array_equal(trial.get("running_var"), var)


def test_a_later_sub_batch_adds_to_the_gradient_and_keeps_its_own_dx(bench):
    x, dy = batch((3, 4, 5))
    trial = bench(BatchNorm(), (3, 4, 5), images=6)
    trial.forward(x)
    (dx,) = trial.backward(dy)
    once = {name: trial.get(name) for name in ("dweight", "dbias")}
    (again,) = trial.backward(dy, accumulate=True)
    np.testing.assert_array_equal(again, dx)
    for name, value in once.items():
        np.testing.assert_array_equal(trial.get(name), 2 * value)


def test_the_first_layer_needs_no_dx(bench):
    x, dy = batch((3, 4, 5))
    trial = bench(BatchNorm(), (3, 4, 5), images=6)
    trial.forward(x)
    assert trial.backward(dy, wanted=[False]) == []
    np.testing.assert_allclose(trial.get("dbias"), columns(dy).sum(1), rtol=1e-4, atol=1e-4)


def test_variance_is_exact_far_from_zero(bench):
    x = (np.random.default_rng(0).normal(size=(6, 1, 60, 60)) + 1000).astype(np.float32)
    trial = bench(BatchNorm(), (1, 60, 60), images=6)
    trial.forward(x)
    np.testing.assert_allclose(
        trial.get("inverse"), 1 / np.sqrt(columns(x).var(1) + 1e-5), rtol=1e-4
    )


@pytest.mark.parametrize("layer", [BatchNorm, BatchNormAdd])
@pytest.mark.parametrize("shape", [(67, 7, 7), (33, 1, 1), (16, 40, 40)])
def test_it_is_the_same_to_the_bit_who_adds_up_the_shares(bench, device, monkeypatch, layer, shape):
    """Each group of what writes the result, as always on CPUs, or one launch before."""
    monkeypatch.setattr(batchnorm, "shares", lambda device, rows: 40)
    random = np.random.default_rng(2)
    dy, *x = random.normal(size=(1 + layer.inputs, 9, *shape))
    found = []
    for itself in (True, False):
        monkeypatch.setattr(
            BatchNorm, "adds_shares", lambda *_, itself=itself: itself or device.long_items
        )
        trial = bench(layer(), *[shape] * layer.inputs, images=9)
        found.append([trial.forward(*x), *trial.backward(dy)])
        trial.backward(dy, accumulate=True, wanted=[False] * layer.inputs)
        names = ("mean", "inverse", "running_mean", "running_var", "dweight", "dbias")
        found[-1] += [trial.get(name) for name in names]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options", [{"momentum": 1.1}, {"momentum": -0.1}, {"epsilon": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=f"{next(iter(options))}: expected"):
        BatchNorm(**options)
