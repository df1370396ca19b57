"""The memory plan: what shares memory never lives at once, and sharing saves most of it."""

from __future__ import annotations

import itertools

import pytest

from mpitrain import models
from mpitrain.plan import Plan, infer_shapes, make_plan


def plan_of(name: str, training: bool = True) -> Plan:
    network = models.load(name, None if name == "lenet" else (3, 64, 64))
    return make_plan(network, infer_shapes(network), 2, training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", models.NAMES)
def test_storages_of_one_slot_never_live_at_once(name: str, training: bool) -> None:
    plan = plan_of(name, training)
    by_slot: dict[int, list[tuple[int, int]]] = {}
    for storage in plan.storages:
        assert storage.nbytes(2) <= plan.slots[storage.slot] and storage.dtype == plan.kinds[storage.slot]
        by_slot.setdefault(storage.slot, []).append((storage.first, storage.last))
    for lives in by_slot.values():
        for (_, last), (first, _) in itertools.pairwise(sorted(lives)):
            assert last < first


@pytest.mark.parametrize("name", models.NAMES)
def test_what_backward_reads_lives_until_then(name: str) -> None:
    network = models.load(name, None if name == "lenet" else (3, 64, 64))
    plan = make_plan(network, infer_shapes(network), 2, training=True)
    end = 2 * len(network.nodes) - 1
    for time, node in enumerate(network.nodes):
        kept = [
            *(node.inputs if "x" in node.layer.keeps else ()),
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
