"""The comparison with the stored reference sees what it should: true errors of every kind, at about
their size."""

from __future__ import annotations

import numpy as np
import pytest
from compare import Reference, reference, summarise
from inputs import CASES, generator

NAME = "conv.weight"


@pytest.fixture
def gradient():
    return generator("some gradient").standard_normal((40, 30, 3, 3))


@pytest.fixture
def known(gradient):
    return Reference("made", 1.0, np.zeros((1, 2)), {NAME: summarise(NAME, gradient)}, 0.0)


def test_the_gradient_itself_is_right(known, gradient):
    assert known.worst_error({NAME: gradient}) == (NAME, 0)
    assert known.error(NAME, gradient.astype(np.float32)) < 1e-7


def test_noise_is_seen_at_its_size(known, gradient):
    noise = generator("noise").standard_normal(gradient.shape)
    for size in (1e-6, 1e-3):
        assert size / 2 < known.error(NAME, gradient + size * noise) < 3 * size


def test_one_wrong_value_is_seen(known, gradient):
    wrong = gradient.copy()
    wrong[17, 4, 1, 2] += 0.01 * np.linalg.norm(gradient)
    assert known.error(NAME, wrong) > 0.005


@pytest.mark.parametrize(
    "change",
    [
        lambda g: 1.01 * g,
        lambda g: -g,
        lambda g: g[::-1],
        lambda g: g[..., ::-1],
        lambda g: g / 4,
        lambda g: 0 * g,
    ],
)
def test_mistakes_are_seen(known, gradient, change):
    assert known.error(NAME, change(gradient)) > 0.005


def test_what_is_not_a_number_is_infinitely_wrong(known, gradient):
    wrong = gradient.copy()
    wrong[39, 29, 2, 2] = np.nan
    assert known.error(NAME, wrong) == float("inf")


def test_other_shapes_and_names_are_refused(known, gradient):
    with pytest.raises(ValueError, match="has shape"):
        known.error(NAME, gradient.reshape(40, -1))
    with pytest.raises(ValueError, match=r"only one has \['conv.bias'\]"):
        known.errors({NAME: gradient, "conv.bias": gradient[0]})


@pytest.mark.parametrize("network", CASES)
def test_a_stored_reference_is_of_these_inputs(network):
    stored = reference(network)  # raises if not
    case = CASES[network]
    assert stored.images().shape == (case.batch, *case.shape)
    assert stored.scores.shape == (case.batch, case.classes)
    rows = np.arange(case.batch)
    logarithms = np.log(np.exp(stored.scores).sum(axis=1)) - stored.scores[rows, stored.labels()]
    assert stored.loss == pytest.approx(logarithms.sum(), rel=1e-12)
    assert stored.float32_error < 2e-5
