"""Images are normalised on the device: bytes as pixels in [0, 1], floats as they are."""

from __future__ import annotations

import numpy as np
import pytest
from blocks import from_blocks, to_blocks

from mpitrain.engine.engine import Engine
from mpitrain.layers.images import Images


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 9)])
def test_pixels_lose_their_mean_and_deviation(
    device: Engine, shape: tuple[int, int, int], dtype: type
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, *shape)).astype(dtype)
    mean, std = random.random(shape[0], np.float32), random.random(shape[0], np.float32) + 0.1
    loader = Images(device, shape, capacity=3)
    loader.normalise(mean, std)
    y = device.upload(to_blocks(np.full((3, *shape), 77, np.float32), device.format))
    loader.load(y, images)
    unit = 255 if dtype is np.uint8 else 1
    wanted = (images / unit - mean[:, None, None].astype(np.float64)) / std[:, None, None]
    found = from_blocks(y.download(), shape[0])
    np.testing.assert_allclose(found[:2], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert (found[2] == 77).all()
