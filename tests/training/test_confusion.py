"""The matrix of true and found classes, and what is read from it."""

from __future__ import annotations

import numpy as np

from mpitrain.training.confusion import ClassScore, Confusion


def test_each_image_is_counted_once_where_its_highest_score_is() -> None:
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 4, 500), random.normal(size=(500, 5)).astype(np.float32)
    confusion = Confusion(5)
    confusion.add(labels[:300], scores[:300])
    confusion.add(labels[300:], scores[300:])
    wanted = np.zeros((5, 5), np.int64)
    for label, row in zip(labels, scores, strict=True):
        wanted[label, max(range(5), key=lambda k: row[k])] += 1
    np.testing.assert_array_equal(confusion.counts, wanted)
    recalls = [score.top1 for score in confusion.classes()]
    assert recalls[:4] == [wanted[k, k] / wanted[k].sum() for k in range(4)]
    assert confusion.classes()[4] == ClassScore(0, None, 0.0)
    count, true, found = confusion.mistakes(3)[0]
    assert count == wanted[true, found] == (wanted - np.diag(np.diag(wanted))).max()
    assert true != found and len(confusion.mistakes(3)) == 3


def test_equal_scores_and_scores_that_are_no_numbers() -> None:
    confusion = Confusion(3)
    scores = np.array([[1, 1, 0], [np.nan, 0, 1], [-np.inf, -np.inf, -5]], np.float32)
    confusion.add(np.array([0, 0, 2]), scores)
    assert confusion.counts.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_nothing_found_is_no_precision() -> None:
    confusion = Confusion(2)
    confusion.add(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert confusion.classes() == [ClassScore(1, 1.0, 0.5), ClassScore(1, 0.0, None)]
    assert confusion.mistakes(9) == [(1, 1, 0)]
