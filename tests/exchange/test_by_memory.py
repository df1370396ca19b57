"""Codes through the memory of a host: the same bytes as by messages, for GPUs (here PoCL's kernels
for them) and for CPUs beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from ranks import BLOCK, BUCKETS, MANY, Model, digest, open_cpu

from mpitrain.exchange import coded
from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.coded import LONGER, Dynamic8, Float16
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire
from mpitrain.runtime import ahead

pytestmark = pytest.mark.mpi(min_size=2)
STEPS = 2
OWN, MIXED = ("pocl as a gpu",), ("cpu", "pocl as a gpu")
SAID = "through shared memory"
LAYOUTS = {
    "many": MANY,
    "few": BUCKETS[1:],  # fewer than slots
    "unlike": [
        Bucket(number, start * BLOCK, stop * BLOCK, coded)
        for number, (start, stop, coded) in enumerate(
            [
                (43, 80, True), (42, 43, True), (39, 42, False), (10, 39, True), (8, 10, True),
                (1, 8, True), (0, 1, True),
            ]
        )
    ],  # shorter ones in slots where longer ones were, of fewer blocks than ranks
}  # fmt: skip


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@contextmanager
def model(
    wire: Wire, update: str, devices: tuple[str, ...], layout: str = "many", **more: Any
) -> Iterator[Model]:
    device = open_cpu(devices[wire.ranks.rank % len(devices)])
    found = Model(wire, "dynamic8", update, device, LAYOUTS[layout], **more)
    try:
        yield found
    finally:
        found.exchange.close()


def run(wire: Wire, each: Model) -> list[Any]:
    """What is left after some steps, and what each step reported."""
    wire.ranks.delay.seconds = 0.001
    reports = [each.step(t) for t in range(STEPS)]
    wire.ranks.delay.seconds = 0.0
    arrays = {"weights": each.weights, **each.exchange.residuals()}
    if each.master:
        arrays["master"] = each.master
    bounds = [np.float32(report.error_bound) for report in reports]
    return [{name: digest(array.download()) for name, array in arrays.items()}, bounds]


@pytest.mark.parametrize(
    ("layout", "streaming", "clip_norm"),
    [
        ("many", True, None),
        ("many", False, None),
        ("many", True, 3.0),
        ("few", True, None),
        ("unlike", True, None),
        ("unlike", True, 3.0),
    ],
)
@pytest.mark.parametrize("devices", [OWN, MIXED])
@pytest.mark.parametrize("update", ["root", "replicated"])
def test_bytes_are_those_of_messages(
    wire: Wire,
    update: str,
    devices: tuple[str, ...],
    layout: str,
    streaming: bool,
    clip_norm: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more: dict[str, Any] = {"layout": layout, "streaming": streaming, "clip_norm": clip_norm}
    with model(wire, update, devices, **more) as by_memory:
        assert str(by_memory.exchange) == SAID
        found = run(wire, by_memory)
    weights = wire.agree.gather_facts(found[0]["weights"])
    assert len(set(weights)) == 1
    monkeypatch.setattr(coded, "pays", lambda *_: False)
    with model(wire, update, devices, **more) as by_message:
        assert str(by_message.exchange) == ""
        assert found == run(wire, by_message)


def test_memory_that_cannot_be_pinned_is_said(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with model(wire, "root", OWN) as each:
        pinned = run(wire, each)
    monkeypatch.setattr(ahead, "pin", lambda context, host: None)
    with model(wire, "root", OWN) as each:
        assert str(each.exchange) == f"{SAID}: memory that is not pinned"
        assert run(wire, each) == pinned


@pytest.mark.parametrize("devices", [OWN, MIXED])
@pytest.mark.parametrize("update", ["root", "replicated"])
def test_a_gradient_that_is_not_finite_is_seen_by_all(
    wire: Wire, update: str, devices: tuple[str, ...]
) -> None:
    def spoil(gradient: Any) -> None:
        if wire.ranks.rank == wire.ranks.size - 1:
            gradient[5000] = np.inf

    with model(wire, update, devices) as each:
        assert each.step(0).finite
        assert not each.step(1, spoil).finite


def test_samples_say_what_was_coded_as_zero(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def outgrow(gradient: Any) -> None:
        gradient[::BLOCK] = 1e7

    def sampled() -> tuple[int, int]:
        with model(wire, "root", OWN) as each:
            each.exchange.sample(1)
            each.step(0, outgrow)
            found = each.exchange.sampled()
            assert found
            return found.bucket, found.flushed

    by_memory = sampled()
    assert by_memory[1] > 0
    monkeypatch.setattr(coded, "pays", lambda *_: False)
    assert sampled() == by_memory


def test_buckets_are_longer_on_all_ranks_where_there_is_room(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    for devices, times in ((("cpu",), 1), (OWN, LONGER), (MIXED, LONGER)):
        device = open_cpu(devices[wire.ranks.rank % len(devices)])
        assert Dynamic8.longest(wire, device, 1 << 12) == times << 12
        assert Float16.longest(wire, device, 1 << 12) == 1 << 12
    monkeypatch.setattr(wire.shared, "has_room", lambda count: False)
    assert Dynamic8.longest(wire, open_cpu(OWN[0]), 1 << 12) == 1 << 12
    with model(wire, "root", OWN) as each:
        assert str(each.exchange) == "by messages, as the host lacks shared memory"
        each.step(0)
        assert len(set(wire.agree.gather_facts(digest(each.weights.download())))) == 1
