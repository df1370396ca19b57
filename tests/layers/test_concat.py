"""Concat against NumPy."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers import Concat

SHAPES = {
    "odd counts": ((3, 5, 7), (5, 5, 7)),
    "a block and odd counts": ((32, 3, 2), (7, 3, 2), (1, 3, 2), (45, 3, 2)),
    "whole blocks": ((64, 4, 4), (32, 4, 4)),
    "half blocks": ((48, 3, 3), (16, 3, 3), (8, 3, 3)),
    "a few channels each": ((2, 3, 5), (1, 3, 5), (1, 3, 5)),
    "few channels into many": ((4, 5, 3), (4, 5, 3), (40, 5, 3)),
    "rows": ((33,), (5,), (64,)),
    "one pixel": ((36, 1, 1), (12, 1, 1)),
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_y_is_the_channels_of_all_and_each_dx_its_own(bench, shapes):
    """The bench also looks at the channels that fill up a block, which must be zeros."""
    random = np.random.default_rng(1)
    x = [random.normal(size=(3, *shape)).astype(np.float32) for shape in shapes]
    trial = bench(Concat(), *shapes)
    y = trial.forward(*x)
    np.testing.assert_array_equal(y, np.concatenate(x, axis=1))
    dy = random.normal(size=y.shape).astype(np.float32)
    places = np.cumsum([shape[0] for shape in shapes])[:-1]
    for dx, expected in zip(trial.backward(dy), np.split(dy, places, axis=1), strict=True):
        np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_a_dx_that_nobody_wants_is_left_out(bench, wanted):
    a, b, dy = np.random.default_rng(1).normal(size=(3, 3, 20, 4, 4)).astype(np.float32)
    trial = bench(Concat(), (20, 4, 4), (20, 4, 4))
    trial.forward(a, b)
    dy = np.concatenate([dy, -dy], axis=1)
    found = trial.backward(dy, wanted=wanted)
    expected = [half for half, want in zip(np.split(dy, 2, axis=1), wanted, strict=True) if want]
    assert len(found) == len(expected)
    for dx, half in zip(found, expected, strict=True):
        np.testing.assert_array_equal(dx, half)


@pytest.mark.parametrize("other", [(8, 2, 2), (8, 4, 2), (8,)])
def test_values_of_another_size_are_refused(other):
    with pytest.raises(UserError, match=r"one height and width, got \(8, 4, 4\), \(8"):
        Concat().output_shape((8, 4, 4), other)
