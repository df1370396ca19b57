"""The order of the images."""

import subprocess
import sys

import numpy as np
import pytest

from mpitrain.data import order
from mpitrain.job.errors import UserError


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_each_epoch_is_a_permutation(epoch):
    numbers = np.concatenate([order.batch(epoch * 5 + k, 20, 4, seed=3) for k in range(5)])
    assert numbers.dtype == np.int64
    assert sorted(numbers) == list(range(20))


def test_the_rest_of_an_epoch_sits_out_and_no_number_comes_twice():
    numbers = np.concatenate([order.batch(k, 23, 4, seed=0) for k in range(5)])
    assert len(set(numbers)) == 20
    assert order.steps_per_epoch(23, 4) == 5
    assert not np.array_equal(order.batch(5, 23, 4, seed=0), order.batch(0, 23, 4, seed=0))


def test_epochs_and_seeds_differ():
    firsts = {tuple(order.batch(step, 100, 100, seed)) for seed in (0, 1) for step in range(3)}
    assert len(firsts) == 6


def test_ranks_agree_without_talking():
    program = "from mpitrain.data import order; print(order.batch(12, 1000, 64, 5).tolist())"
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    order.batch(900, 1000, 64, 5)
    assert other.stdout.strip() == str(order.batch(12, 1000, 64, 5).tolist())


def test_a_batch_cannot_be_changed_by_its_reader():
    with pytest.raises(ValueError, match="read-only"):
        order.batch(0, 10, 5, 0)[0] = 1


@pytest.mark.parametrize(("n", "batch_size"), [(10, 11), (10, 0), (0, 1)])
def test_a_batch_larger_than_the_set_is_an_error(n, batch_size):
    with pytest.raises(UserError, match="expected at"):
        order.batch(0, n, batch_size, 0)
