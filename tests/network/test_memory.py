"""The memory plan: what shares memory never lives at once, and sharing saves most of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers import Relu
from mpitrain.network import models
from mpitrain.network.memory import Plan, infer_shapes, make_plan
from mpitrain.network.network import Node
from mpitrain.runtime.array import ALIGNMENT


def plan_of(name: str, training: bool = True) -> Plan:
    network = models.load(name, None if name == "lenet" else (3, 64, 64))
    return make_plan(network, infer_shapes(network), 2, training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", models.NAMES)
def test_storages_that_live_at_once_have_places_of_their_own(name: str, training: bool) -> None:
    plan = plan_of(name, training)
    for storage in plan.storages:
        assert storage.offset + storage.nbytes(2) <= plan.slots[storage.slot]
        assert storage.offset % ALIGNMENT == 0 and storage.dtype == plan.kinds[storage.slot]
    for one, other in itertools.combinations(plan.storages, 2):
        at_once = one.first <= other.last and other.first <= one.last
        if one.slot == other.slot and at_once:
            first, second = sorted((one, other), key=lambda each: each.offset)
            assert first.offset + first.nbytes(2) <= second.offset


@pytest.mark.parametrize("name", models.NAMES)
def test_what_backward_reads_lives_until_then(name: str) -> None:
    network = models.load(name, None if name == "lenet" else (3, 64, 64))
    plan = make_plan(network, infer_shapes(network), 2, training=True)
    end = 2 * len(network.nodes) - 1
    for time, node in enumerate(network.nodes):
        kept = [
            *(name for number, name in enumerate(node.inputs) if node.layer.keeps_input(number)),
            *((node.name,) if "y" in node.layer.keeps else ()),
        ]
        for value in kept:
            assert plan.storages[plan.values[value]].last >= end - time, (
                f"{node.name} reads {value} on the way back"
            )


def test_relu_works_in_its_inputs_memory() -> None:
    network = models.load("vgg11", (3, 64, 64))
    plan = make_plan(network, infer_shapes(network), 2, training=True)
    assert plan.values["features.1"] == plan.values["features.0"]


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_sharing_saves(name: str) -> None:
    plan, forward = plan_of(name), plan_of(name, training=False)
    assert plan.nbytes < 0.75 * sum(storage.nbytes(2) for storage in plan.storages)
    assert forward.nbytes < 0.5 * plan.nbytes


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", models.NAMES)
def test_images_labels_scores_and_losses_are_nobody_elses(name: str, training: bool) -> None:
    """Images and labels are there before the first layer runs; scores and losses are read after the
    last one."""
    network = models.load(name, None if name == "lenet" else (3, 64, 64))
    plan = make_plan(network, infer_shapes(network), 2, training)
    scores, loss = network.nodes[-1].inputs[0], network.nodes[-1].name
    assert plan.storages[plan.values["input"]].first < 0
    assert plan.storages[plan.memories[loss, "labels"]].first < 0
    end = max(storage.last for storage in plan.storages)
    assert plan.storages[plan.values[scores]].last == plan.storages[plan.values[loss]].last == end
    assert end > (2 if training else 1) * len(network.nodes) - 1


@pytest.mark.parametrize("name", models.NAMES)
def test_a_gradient_lives_from_its_first_writer_to_its_own_layers_backward(name: str) -> None:
    network = models.load(name, None if name == "lenet" else (3, 64, 64))
    plan = make_plan(network, infer_shapes(network), 2, training=True)
    end = 2 * len(network.nodes) - 1
    times = {node.name: time for time, node in enumerate(network.nodes)}
    for node in network.nodes:
        storage = plan.storages[plan.gradients[node.name]]
        readers = [
            time for each, time in times.items() if node.name in network.nodes[times[each]].inputs
        ]
        assert storage.last >= end - times[node.name], node.name
        assert storage.first <= end - max(readers, default=times[node.name]), node.name
    assert "input" not in plan.gradients


def test_what_is_read_by_two_is_not_worked_on_in_place() -> None:
    """A block's sum is the next block's input and its shortcut: the ReLU between may take its
    memory, the block's own layers not."""
    network = models.load("resnet18", (3, 64, 64))
    plan = make_plan(network, infer_shapes(network), 2, training=True)
    assert plan.values["layer1.0.relu"] == plan.values["layer1.0.add"]
    assert plan.values["layer1.1.add"] != plan.values["layer1.0.relu"]
    assert plan.gradients["layer1.1.add"] == plan.gradients["layer1.1.bn2"]


def test_a_layer_that_nobody_reads_is_named() -> None:
    network = models.load("lenet")
    spare = Node("spare", Relu(), ("conv1",))
    wrong = replace(network, nodes=(*network.nodes[:1], spare, *network.nodes[1:]))
    with pytest.raises(UserError, match="spare: no later layer takes it as input"):
        infer_shapes(wrong)
