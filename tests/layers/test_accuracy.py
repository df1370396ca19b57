"""The label's rank among the scores."""

import numpy as np
import pytest

from mpitrain.layers.accuracy import Accuracy


def ranks(device, x, labels):
    """Ranks for these images, in an array with one more that must stay as it was."""
    rank = device.upload(np.full(len(x) + 1, 77, np.int32))
    Accuracy(device, x.shape[1])(
        rank, device.upload(x.astype(np.float32)), device.upload(np.array(labels, np.int32)), len(x)
    )
    *found, guard = rank.download()
    assert guard == 77
    return found


@pytest.mark.parametrize("classes", [1, 10, 1000])
def test_rank_is_the_place_in_a_stable_sort(device, classes):
    random = np.random.default_rng(classes)
    x = random.integers(40, size=(9, classes))  # many equals
    labels = random.integers(classes, size=9)
    order = np.argsort(-x, axis=1, kind="stable")
    assert ranks(device, x, labels) == np.argwhere(order == labels[:, None])[:, 1].tolist()


def test_equals_count_by_their_number(device):
    assert ranks(device, np.zeros((3, 5)), [0, 2, 4]) == [0, 2, 4]


def test_nan_and_impossible_labels_are_never_right(device):
    nan = np.nan
    x = np.array([[nan, 1, 2], [nan, 1, 2], [nan, nan, nan], [0, 1, 2], [0, 1, 2]])
    assert ranks(device, x, [0, 1, 1, 3, -1]) == [3, 1, 3, 3, 3]
