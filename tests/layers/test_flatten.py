"""Flatten keeps every value in its place."""

import numpy as np
import pytest

from mpitrain.layers.flat import same_memory
from mpitrain.layers.flatten import Flatten


@pytest.mark.parametrize("shape", [(4, 5, 6), (32, 1, 1), (16, 3, 2), (20, 1, 1), (37, 2, 3), (7,)])
@pytest.mark.parametrize("in_place", [False, True])
def test_values_keep_their_order_both_ways(device, bench, in_place, shape):
    x, dy = np.random.default_rng(1).normal(size=(2, 3, *shape)).astype(np.float32)
    layer = Flatten()
    in_place = in_place and layer.shares_memory(device.format, shape)
    trial = bench(layer, shape)
    size = int(np.prod(shape))
    assert trial.output == (size,)
    np.testing.assert_array_equal(trial.forward(x, in_place=in_place), x.reshape(3, size))
    (dx,) = trial.backward(dy.reshape(3, size), in_place=in_place)
    np.testing.assert_array_equal(dx, dy)


def test_views_of_one_place_are_the_same_memory(device):
    whole = device.zeros((1024,))
    assert same_memory(whole.part(512, 1024), whole.part(512, 800).reshape((4, 72)))
    assert not same_memory(whole, whole.part(512, 1024))
    assert not same_memory(whole, device.zeros((1024,)))
