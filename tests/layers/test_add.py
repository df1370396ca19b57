"""Add against NumPy."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers.add import Add


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 40, 60)])
def test_y_is_the_sum_and_both_dx_are_dy(bench, shape, in_place):
    a, b, dy = np.random.default_rng(1).normal(size=(3, 3, *shape)).astype(np.float32)
    trial = bench(Add(), shape, shape)
    np.testing.assert_array_equal(trial.forward(a, b, in_place=in_place), a + b)
    for dx in trial.backward(dy, in_place=in_place):
        np.testing.assert_array_equal(dx, dy)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_a_dx_that_nobody_wants_is_left_out(bench, wanted):
    a, b, dy = np.random.default_rng(1).normal(size=(3, 3, 33)).astype(np.float32)
    trial = bench(Add(), (33,), (33,))
    trial.forward(a, b)
    found = trial.backward(dy, wanted=wanted)
    assert len(found) == sum(wanted)
    for dx in found:
        np.testing.assert_array_equal(dx, dy)


def test_values_of_different_shapes_are_refused():
    with pytest.raises(UserError, match=r"one shape, got \(8, 4, 4\) and \(8, 2, 2\)"):
        Add().output_shape((8, 4, 4), (8, 2, 2))
