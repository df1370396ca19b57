"""Dense layers against NumPy, on whole numbers, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mpitrain.layers import Dense
from mpitrain.layers.layer import Pass
from mpitrain.report import UserError
from mpitrain.runtime.device import Device


@pytest.mark.parametrize(
    ("images", "inputs", "features"), [(1, 1, 1), (3, 7, 5), (64, 800, 500), (1, 129, 130), (17, 513, 10)]
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_both_ways_are_exact(
    device: Device, images: int, inputs: int, features: int, with_bias: bool
) -> None:
    random = np.random.default_rng(0)

    def whole(*extents: int) -> NDArray[np.float32]:
        return random.integers(-3, 4, extents).astype(np.float32)

    layer = Dense(features, bias=with_bias)
    layer.build(device, (inputs,))
    weight, bias, x, dy = (
        whole(features, inputs),
        whole(features),
        whole(images, inputs),
        whole(images, features),
    )
    layer.weight, layer.bias = device.upload(weight), device.upload(bias)
    layer.dweight, layer.dbias = device.zeros(weight.shape), device.zeros(bias.shape)
    layer.scratch = device.empty((max(1, layer.workspace(images, (inputs,))),))
    y, dx, device_x, device_dy = (
        device.empty(dy.shape),
        device.empty(x.shape),
        device.upload(x),
        device.upload(dy),
    )
    layer.forward(Pass(images), y, device_x)
    layer.backward(Pass(images), [dx], device_dy, [device_x], y)
    layer.backward(Pass(images, accumulate=True), [None], device_dy, [device_x], y)
    np.testing.assert_array_equal(y.download(), x @ weight.T + (bias if with_bias else 0))
    np.testing.assert_array_equal(dx.download(), dy @ weight)
    np.testing.assert_array_equal(layer.dweight.download(), 2 * dy.T @ x)
    np.testing.assert_array_equal(
        layer.dbias.download(), 2 * dy.sum(axis=0) if with_bias else np.zeros(features)
    )


def test_images_must_be_flattened_first() -> None:
    with pytest.raises(UserError, match=r"got \(3, 8, 8\); flatten first"):
        Dense(10).output_shape((3, 8, 8))
