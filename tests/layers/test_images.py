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


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_that_were_brought_before_are_the_same(device: Engine, dtype: type) -> None:
    shape = (3, 7, 9)
    batches = np.random.default_rng(0).integers(0, 256, (3, 2, *shape)).astype(dtype)
    loader, found = Images(device, shape, capacity=2), []
    loader.normalise(np.zeros(3, np.float32), np.ones(3, np.float32))
    y = device.empty((2, *device.format.stored(shape)))
    for bring in (False, True):
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            loader.load(y, batch)
            found.append(y.download())
            if bring and following is not None:
                loader.bring(following)
                loader.load(y, batches[0])  # as an evaluation between
    np.testing.assert_array_equal(found[:3], found[3:])
