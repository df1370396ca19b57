"""Where parameters lie in the flat vector, and what they start from."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.layers.layer import Parameter, size
from mpitrain.network import models
from mpitrain.network.graph import parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.parameters import BLOCK, BUCKET, SMALL, Layout


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


@pytest.mark.parametrize("longest", [BUCKET, 2 * BUCKET])
@pytest.mark.parametrize("name", models.NAMES)
def test_buckets_cover_every_value_once(name: str, longest: int) -> None:
    layout = layout_of(name)
    buckets = sorted(layout.buckets(longest=longest), key=lambda bucket: bucket.start)
    large = layout.coded >= longest
    assert (max(bucket.size for bucket in buckets if bucket.coded) == longest) == large
    assert [bucket.start for bucket in buckets] == [0, *(bucket.stop for bucket in buckets[:-1])]
    assert buckets[-1].stop == layout.length
    assert all(0 < bucket.stop - bucket.start <= longest for bucket in buckets[:-1])
    assert not any(bucket.coded for bucket in buckets if bucket.start >= layout.coded)


def test_a_tensor_starts_from_its_name_and_the_seed_alone() -> None:
    weight, bias = Parameter((30, 40), "he", 40, coded=True), Parameter((30,), "zeros")
    alone = Layout({"fc.weight": weight})
    beside = Layout({"other.weight": weight, "fc.weight": weight, "fc.bias": bias})
    slot = beside.slots["fc.weight"]
    np.testing.assert_array_equal(
        alone.initial(3)[:1200], beside.initial(3)[slot.start : slot.stop]
    )
    assert (alone.initial(3) != alone.initial(4)).any()
    assert alone.initial(0)[:1200].std() == pytest.approx(np.sqrt(2 / 40), rel=0.1)
    assert (beside.initial(3)[beside.coded :] == 0).all()


def test_tensors_of_one_shape_and_two_names_start_differently() -> None:
    weight = Parameter((30, 40), "he", 40, coded=True)
    layout = Layout({"a.weight": weight, "b.weight": weight})
    first, second = (layout.initial(3)[slot.start : slot.stop] for slot in layout.slots.values())
    assert (first != second).mean() > 0.99
    np.testing.assert_array_equal(layout.initial(3), Layout(dict(layout.parameters)).initial(3))


def test_each_kind_of_start_has_its_spread() -> None:
    shape = (100, 200)
    layout = Layout(
        {
            "uniform": Parameter(shape, "uniform", 25),
            "normal": Parameter(shape, "normal"),
            "he": Parameter(shape, "he", 50),
            "ones": Parameter((7,), "ones"),
            "zeros": Parameter((7,), "zeros"),
        }
    )
    vector = layout.initial(0)
    found = {name: vector[slot.start : slot.stop] for name, slot in layout.slots.items()}
    assert abs(found["uniform"]).max() <= 0.2 and found["uniform"].std() == pytest.approx(
        0.2 / np.sqrt(3), rel=0.02
    )
    assert found["normal"].std() == pytest.approx(0.01, rel=0.03)
    assert found["he"].std() == pytest.approx(0.2, rel=0.03)
    assert all(abs(found[name].mean()) < 0.005 for name in ("uniform", "normal", "he"))
    assert (found["ones"] == 1).all() and (found["zeros"] == 0).all()
    gaps = np.ones(layout.length, bool)
    for slot in layout.slots.values():
        gaps[slot.start : slot.stop] = False
    assert gaps.any() and (vector[gaps] == 0).all()


def test_names_stay_in_the_networks_order_and_lie_so() -> None:
    layout = layout_of("lenet")
    assert list(layout.slots) == [
        f"{layer}.{each}"
        for layer in ("conv1", "conv2", "fc1", "fc2")
        for each in ("weight", "bias")
    ]
    for each in ("weight", "bias"):
        starts = [slot.start for name, slot in layout.slots.items() if name.endswith(each)]
        assert starts == sorted(starts)


def test_buckets_are_numbered_from_the_last_layer_on_and_small_ones_stay_whole() -> None:
    for name in ("lenet", "resnet18"):
        layout = layout_of(name)
        buckets = layout.buckets()
        assert [bucket.number for bucket in buckets] == list(range(len(buckets)))
        assert [bucket.stop for bucket in buckets[:-1]] == sorted(
            (bucket.stop for bucket in buckets[:-1]), reverse=True
        )
        assert buckets[0].stop == layout.coded and buckets[0].coded
    small = Layout({"fc.weight": Parameter((SMALL // 512 - 1, 512), "he", 512, coded=True)})
    assert [bucket.coded for bucket in small.buckets()] == [False]
    large = Layout({"fc.weight": Parameter((SMALL // 512, 512), "he", 512, coded=True)})
    assert [bucket.coded for bucket in large.buckets()] == [True]


@pytest.mark.parametrize("name", ["lenet", "resnet18"])
def test_whole_tensors_are_in_one_bucket_each_as_the_matrix_of_its_outputs(name: str) -> None:
    layout = layout_of(name)
    buckets = layout.buckets(whole=True)
    assert [bucket.stop for bucket in buckets[1:-1]] == [each.start for each in buckets[:-2]]
    found = {
        bucket.start + m.start: (m.rows, m.columns) for bucket in buckets for m in bucket.matrices
    }
    expected = {
        slot.start: (slot.shape[0], size(slot.shape[1:]))
        for slot in layout.slots.values()
        if slot.coded
    }
    assert found == expected
    assert all(m.start % 512 == 0 for bucket in buckets for m in bucket.matrices)


def test_a_range_names_its_tensors() -> None:
    layout = layout_of("lenet")
    assert layout.tensors_in(0, 1) == ["conv1.weight"]
    assert set(layout.tensors_in(layout.coded, layout.length)) == {
        "conv1.bias",
        "conv2.bias",
        "fc1.bias",
        "fc2.bias",
    }
