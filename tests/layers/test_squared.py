"""The squared loss against float64 NumPy."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers.squared import SquaredLoss


def reference(labels):
    return lambda x: 0.5 * ((x - (np.arange(x.shape[1]) == labels[:, None])) ** 2).sum(axis=1)


@pytest.mark.parametrize("classes", [1, 10, 67])
def test_loss_and_gradient(bench, classes, numerical):
    random = np.random.default_rng(classes)
    x = random.normal(size=(4, classes))
    labels = random.integers(classes, size=4).astype(np.int32)
    trial = bench(SquaredLoss(), (classes,), images=4)
    trial.set("labels", labels)
    np.testing.assert_allclose(trial.forward(x), reference(labels)(x), rtol=1e-5)
    (dx,) = trial.backward(np.full(4, np.nan))
    np.testing.assert_allclose(
        dx, numerical(reference(labels), x, np.ones(4)), rtol=1e-5, atol=1e-6
    )


def test_impossible_labels_give_nan(bench):
    trial = bench(SquaredLoss(), (3,))
    trial.set("labels", np.array([3, -1, 99], np.int32))
    assert np.isnan(trial.forward(np.zeros((3, 3)))).all()


def test_scores_are_one_row_an_image():
    with pytest.raises(UserError, match="flatten first"):
        SquaredLoss().output_shape((10, 1, 1))
