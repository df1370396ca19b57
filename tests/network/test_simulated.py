"""Computing that is only slept: the same buckets in the same order as the real thing, and the time
that was asked for."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device
from mpitrain.layers.layer import Pass
from mpitrain.network import models
from mpitrain.network.graph import Graph
from mpitrain.network.simulated import SimulatedGraph


@pytest.fixture(scope="module")
def cpu() -> Engine:
    return open_device("cpu")


def test_it_sleeps_as_long_as_was_asked_and_no_longer(
    cpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of the clock is counted, so a busy machine changes nothing."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    graph = SimulatedGraph(cpu, models.load("lenet"), 20, 0.01)
    run = Pass(20, True, False, seed=0, first=0)
    graph.forward(run)
    assert sum(slept) == pytest.approx(20 * 0.01 / 3)
    assert len(list(graph.backward(run))) == len(graph.buckets)
    assert sum(slept) == pytest.approx(20 * 0.01)
    assert graph.losses(20).sum() == 0


def test_buckets_come_as_from_a_real_network_and_are_not_empty(cpu: Engine) -> None:
    real = Graph(cpu, models.load("lenet"), 2)
    simulated = SimulatedGraph(cpu, models.load("lenet"), 2, 0.0)
    run = Pass(2, True, False, seed=0, first=0)
    assert list(simulated.backward(run, last=False)) == []
    for bucket, expected in zip(simulated.backward(run), real.buckets, strict=True):
        assert bucket == expected
        assert (simulated.gradient.part(bucket.start, bucket.stop).download() > 0).all()
    assert simulated.layout.slots == real.layout.slots


def test_vgg16s_dense_layers_are_ready_at_once(cpu: Engine) -> None:
    """They have nine tenths of the parameters and a hundredth of the FLOPs: most of the exchange
    can hide."""
    graph = SimulatedGraph(cpu, models.load("vgg16"), 1, 0.3)
    begin, early = time.perf_counter(), 0
    for bucket in graph.backward(Pass(1, True, False, seed=0, first=0)):
        early += bucket.stop - bucket.start if time.perf_counter() - begin < 0.1 else 0
    assert early > 0.85 * graph.layout.length
    assert np.isfinite(graph.gradient.part(0, 512).download()).all()
