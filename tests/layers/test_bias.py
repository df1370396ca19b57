"""A bias's gradient is the sum over images and pixels."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.layers.bias import BiasGradient
from mpitrain.runtime.device import Device


@pytest.mark.parametrize(("channels", "pixels"), [(1, 1), (10, 1), (37, 1), (3, 5), (20, 576), (64, 49)])
def test_the_sum_is_exact_and_can_be_added(device: Device, channels: int, pixels: int) -> None:
    dy = np.random.default_rng(0).integers(-9, 10, (4, channels, pixels)).astype(np.float32)
    dbias = device.upload(np.append(np.full(channels, 5), 77).astype(np.float32))
    gradient = BiasGradient(device, channels, pixels)
    gradient(dbias, device.upload(dy), 3, accumulate=True)
    np.testing.assert_array_equal(dbias.download(), np.append(dy[:3].sum(axis=(0, 2)) + 5, 77))
    gradient(dbias, device.upload(dy), 4, accumulate=False)
    np.testing.assert_array_equal(dbias.download(), np.append(dy.sum(axis=(0, 2)), 77))
