"""Where parameters lie in the flat vector, and what they start from."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain import models
from mpitrain.graph import parameters_of
from mpitrain.layers.layer import Parameter
from mpitrain.layout import BLOCK, BUCKET, Layout
from mpitrain.plan import infer_shapes


def layout_of(name: str) -> Layout:
    network = models.load(name)
    return Layout(parameters_of(network, infer_shapes(network)))


@pytest.mark.parametrize("name", models.NAMES)
def test_every_tensor_has_a_place_of_its_own_at_a_block(name: str) -> None:
    layout = layout_of(name)
    at = 0
    for slot in sorted(layout.slots.values(), key=lambda slot: slot.start):
        assert slot.start % BLOCK == 0 and slot.start >= at
        at = slot.stop
        assert (slot.stop <= layout.coded) == (len(slot.shape) > 1)
    assert layout.length - layout.count < BLOCK * len(layout.slots)


@pytest.mark.parametrize("name", models.NAMES)
def test_buckets_cover_every_value_once(name: str) -> None:
    layout = layout_of(name)
    buckets = sorted(layout.buckets(), key=lambda bucket: bucket.start)
    assert [bucket.start for bucket in buckets] == [0, *(bucket.stop for bucket in buckets[:-1])]
    assert buckets[-1].stop == layout.length
    assert all(0 < bucket.stop - bucket.start <= BUCKET for bucket in buckets[:-1])
    assert not any(bucket.coded for bucket in buckets if bucket.start >= layout.coded)


def test_a_tensor_starts_from_its_name_and_the_seed_alone() -> None:
    weight, bias = Parameter((30, 40), "he", 40), Parameter((30,), "zeros")
    alone = Layout({"fc.weight": weight})
    beside = Layout({"other.weight": weight, "fc.weight": weight, "fc.bias": bias})
    slot = beside.slots["fc.weight"]
    np.testing.assert_array_equal(alone.initial(3)[:1200], beside.initial(3)[slot.start : slot.stop])
    assert (alone.initial(3) != alone.initial(4)).any()
    assert alone.initial(0)[:1200].std() == pytest.approx(np.sqrt(2 / 40), rel=0.1)
    assert (beside.initial(3)[beside.coded :] == 0).all()


def test_a_range_names_its_tensors() -> None:
    layout = layout_of("lenet")
    assert layout.tensors_in(0, 1) == ["conv1.weight"]
    assert set(layout.tensors_in(layout.coded, layout.length)) == {
        "conv1.bias",
        "conv2.bias",
        "fc1.bias",
        "fc2.bias",
    }
