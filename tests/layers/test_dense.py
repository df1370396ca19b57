"""Dense layers against NumPy, on whole numbers, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.job.errors import UserError
from mpitrain.layers import Dense
from mpitrain.layers.layer import Pass

SPARE, GUARD = 2, 77.0


@pytest.mark.parametrize(
    ("images", "inputs", "features"),
    [
        (1, 1, 1),
        (3, 7, 5),
        (64, 800, 500),
        (1, 129, 130),
        (17, 513, 10),
        (64, 3, 65),
        (2, 48, 47),
        (65, 33, 17),
        (70, 600, 40),
        (5, 1030, 133),
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_both_ways_are_exact(
    device: Engine, images: int, inputs: int, features: int, with_bias: bool
) -> None:
    random = np.random.default_rng(0)

    def whole(*extents: int) -> NDArray[np.float32]:
        return random.integers(-3, 4, extents).astype(np.float32)

    layer = Dense(features, bias=with_bias)
    layer.build(device, (inputs,))
    weight, bias, x, dy = (
        whole(features, inputs),
        whole(features),
        whole(images + SPARE, inputs),
        whole(images + SPARE, features),
    )
    layer.weight, layer.bias = device.upload(weight), device.upload(bias)
    layer.dweight, layer.dbias = device.zeros(weight.shape), device.zeros(bias.shape)
    layer.scratch = device.empty((max(1, layer.workspace(images, (inputs,))),))
    y, dx, device_x, device_dy = (
        device.upload(np.full(dy.shape, GUARD, np.float32)),
        device.upload(np.full(x.shape, GUARD, np.float32)),
        device.upload(x),
        device.upload(dy),
    )
    layer.forward(Pass(images), y, device_x)
    layer.backward(Pass(images), [dx], device_dy, [device_x], y)
    layer.backward(Pass(images, accumulate=True), [None], device_dy, [device_x], y)
    assert (y.download()[images:] == GUARD).all() and (dx.download()[images:] == GUARD).all()
    x, dy = x[:images].astype(np.float64), dy[:images].astype(np.float64)
    np.testing.assert_array_equal(y.download()[:images], x @ weight.T + (bias if with_bias else 0))
    np.testing.assert_array_equal(dx.download()[:images], dy @ weight)
    np.testing.assert_array_equal(layer.dweight.download(), 2 * dy.T @ x)
    np.testing.assert_array_equal(
        layer.dbias.download(), 2 * dy.sum(axis=0) if with_bias else np.zeros(features)
    )


def test_the_gradients_are_the_slopes_of_the_sums(device: Engine, numerical: Any) -> None:
    random, layer = np.random.default_rng(0), Dense(4)
    x, weight, bias, dy = (random.normal(size=shape) for shape in ((3, 5), (4, 5), (4,), (3, 4)))
    layer.build(device, (5,))
    layer.weight, layer.bias, device_x, device_dy = (
        device.upload(each.astype(np.float32)) for each in (weight, bias, x, dy)
    )
    layer.dweight, layer.dbias, dx = (device.empty(shape) for shape in ((4, 5), (4,), (3, 5)))
    layer.scratch = device.empty((max(1, layer.workspace(3, (5,))),))
    layer.backward(Pass(3), [dx], device_dy, [device_x], device_dy)
    for found, function, at in (
        (dx, lambda x: x @ weight.T + bias, x),
        (layer.dweight, lambda weight: x @ weight.T + bias, weight),
        (layer.dbias, lambda bias: x @ weight.T + bias, bias),
    ):
        np.testing.assert_allclose(
            found.download(), numerical(function, at, dy), rtol=1e-4, atol=1e-5
        )


def test_a_layer_without_outputs_is_refused() -> None:
    with pytest.raises(UserError, match="dense: features must be at least 1, got 0"):
        Dense(0)


def test_images_must_be_flattened_first() -> None:
    with pytest.raises(UserError, match=r"got \(3, 8, 8\); flatten first"):
        Dense(10).output_shape((3, 8, 8))
