"""A bias's gradient is the sum over images and pixels, of what a ReLU after it lets through."""

from __future__ import annotations

import numpy as np
import pytest
from blocks import from_blocks, to_blocks

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import PLANES
from mpitrain.layers.bias import BiasGradient


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(
    ("channels", "pixels"), [(1, None), (10, None), (37, None), (5, 1), (3, 5), (20, 576), (64, 49)]
)
def test_the_sum_is_exact_and_can_be_added(
    device: Engine, channels: int, pixels: int | None, rectified: bool
) -> None:
    random = np.random.default_rng(0)
    shape = (4, channels, pixels or 1, 1)
    dy, y = (random.integers(-9, 10, shape).astype(np.float32) for _ in range(2))
    if rectified and pixels is None:
        rectified = False  # nobody asks it of these
    fmt = device.format if pixels else PLANES
    dbias = device.upload(np.append(np.full(channels, 5), 77).astype(np.float32))
    gradient = BiasGradient(device, channels, pixels)
    scratch = device.empty((max(1, gradient.workspace),))
    device_y = device.upload(to_blocks(y, fmt)) if rectified else None
    passed = dy * (y > 0) if rectified else dy

    device_dy = device.upload(to_blocks(dy, fmt))
    gradient(dbias, device_dy, device_y, 3, True, scratch)
    np.testing.assert_array_equal(
        dbias.download(), np.append(passed[:3].sum(axis=(0, 2, 3)) + 5, 77)
    )
    found = from_blocks(device_dy.download(), channels)
    np.testing.assert_array_equal(found, np.concatenate([passed[:3], dy[3:]]))
    gradient(dbias, device.upload(to_blocks(dy, fmt)), device_y, 4, False, scratch)
    np.testing.assert_array_equal(dbias.download(), np.append(passed.sum(axis=(0, 2, 3)), 77))
