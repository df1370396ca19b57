"""Softmax with cross-entropy against float64 NumPy."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers.softmax import SoftmaxCrossEntropy


def reference(labels):
    """The loss an image as a function of the scores, in float64."""

    def loss(x):
        shifted = x.astype(np.float64) - x.max(axis=1, keepdims=True)
        return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(x)), labels]

    return loss


@pytest.mark.parametrize("classes", [1, 2, 10, 67, 1000])
def test_loss_probabilities_and_gradient(bench, classes):
    random = np.random.default_rng(classes)
    x = (3 * random.normal(size=(4, classes))).astype(np.float32)
    labels = random.integers(classes, size=4).astype(np.int32)
    trial = bench(SoftmaxCrossEntropy(), (classes,), images=4)
    trial.set("labels", labels)
    np.testing.assert_allclose(trial.forward(x), reference(labels)(x), rtol=2e-5, atol=1e-6)
    p = np.exp(x.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(trial.get("probabilities")[:4], p, rtol=2e-5)
    (dx,) = trial.backward(np.full(4, np.nan))
    np.testing.assert_allclose(
        dx, p - (np.arange(classes) == labels[:, None]), rtol=2e-5, atol=1e-6
    )


def test_the_gradient_is_the_slope(bench, numerical):
    x = np.random.default_rng(0).normal(size=(3, 5))
    labels = np.array([4, 0, 2], np.int32)
    trial = bench(SoftmaxCrossEntropy(), (5,))
    trial.set("labels", labels)
    trial.forward(x)
    np.testing.assert_allclose(
        trial.backward(np.ones(3))[0], numerical(reference(labels), x, np.ones(3)), atol=1e-6
    )


def test_huge_scores_neither_overflow_nor_lose_the_loss(bench):
    x = np.array([[1000, -1000, 998], [-1000, -1000, -1000], [3e38, 0, -3e38]], np.float32)
    trial = bench(SoftmaxCrossEntropy(), (3,))
    trial.set("labels", np.array([2, 1, 0], np.int32))
    np.testing.assert_allclose(
        trial.forward(x), [2 + np.log1p(np.exp(-2)), np.log(3), 0], rtol=1e-6
    )
    assert np.isfinite(trial.backward(np.ones(3))[0]).all()


def test_nan_scores_and_impossible_labels_give_nan(bench):
    x = np.array([[0, np.nan, 1], [0, 1, 2], [0, 1, 2]], np.float32)
    trial = bench(SoftmaxCrossEntropy(), (3,))
    trial.set("labels", np.array([0, 3, -1], np.int32))
    assert np.isnan(trial.forward(x)).all()


def test_scores_are_one_row_an_image():
    with pytest.raises(UserError, match=r"got \(10, 1, 1\); flatten first"):
        SoftmaxCrossEntropy().output_shape((10, 1, 1))


def targets(labels, others, shares, smoothing, classes):
    """Soft labels (N, classes), float64."""
    each = np.eye(classes)
    pair = shares[:, None] * each[labels] + (1 - shares[:, None]) * each[others]
    return (1 - smoothing) * pair + smoothing / classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_soft_labels_give_the_cross_entropy_with_them(bench, smoothing, classes):
    random = np.random.default_rng(classes)
    x = (3 * random.normal(size=(4, classes))).astype(np.float32)
    labels, others = random.integers(classes, size=(2, 4)).astype(np.int32)
    shares = np.array([1, 0.25, 0, 0.7], np.float32)
    trial = bench(SoftmaxCrossEntropy(), (classes,), images=4)
    trial.set("labels", labels)
    soft = trial.layer.soften(smoothing, 4)
    soft.others.write(others)
    soft.shares.write(shares)
    t = targets(labels, others, shares.astype(np.float64), smoothing, classes)
    p = np.exp(x.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    want = -(t * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(trial.forward(x), want, rtol=3e-5, atol=1e-5)
    (dx,) = trial.backward(np.full(4, np.nan))
    np.testing.assert_allclose(dx, p - t, rtol=3e-5, atol=1e-6)


def test_soft_labels_that_are_no_class_make_the_loss_nan(bench):
    trial = bench(SoftmaxCrossEntropy(), (3,), images=2)
    trial.set("labels", np.array([0, 1], np.int32))
    trial.layer.soften(0.1, 2).others.write(np.array([3, 2], np.int32))
    loss = trial.forward(np.zeros((2, 3), np.float32))
    assert np.isnan(loss[0]) and np.isfinite(loss[1])
