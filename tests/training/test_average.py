"""The moving average of the weights: its equation, the same on all ranks, used in evaluation, saved
and taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mpitrain
from mpitrain.engine.engine import Engine
from mpitrain.job.checkpoint import Reader
from mpitrain.training import loop
from mpitrain.training.average import WeightAverage, decay_after
from mpitrain.training.hooks import registry
from mpitrain.training.plan import Progress
from mpitrain.training.world import World

MakeWorld = Callable[..., World]


def trained(world: World) -> Progress:
    start = Progress(world.plan.begun)
    return loop.run(world, start, registry.make_hooks(world.plan))[1]


def test_it_is_its_equation_and_the_same_bytes_as_numpys(device: Engine) -> None:
    random = np.random.default_rng(0)
    sizes = 1000, 37
    w, s = (random.normal(size=size).astype(np.float32) for size in sizes)
    graph: Any = SimpleNamespace(
        device=device, weights=device.upload(w), statistics=device.upload(s)
    )
    average = WeightAverage(graph, 0.25)
    average.begin()
    true, rounded = w.astype(np.float64), w.copy()
    for step in range(1, 5):
        w = random.normal(size=w.size).astype(np.float32)
        graph.weights.write(w)
        average.follow(step)
        d = min(0.25, (1 + step) / (10 + step))
        true = d * true + (1 - d) * w
        rounded = rounded + np.float32(1 - d) * (w - rounded)
    np.testing.assert_allclose(average.weights.download(), true, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(average.weights.download(), rounded)
    np.testing.assert_allclose(average.statistics.download(), s, rtol=1e-6)
    with average.in_place():
        np.testing.assert_array_equal(graph.weights.download(), rounded)
    np.testing.assert_array_equal(graph.weights.download(), w)
    np.testing.assert_array_equal(average.weights.download(), rounded)


def test_it_follows_closely_at_first() -> None:
    assert decay_after(1, 0.999) == 2 / 11
    assert decay_after(8989, 0.999) < 0.999 == decay_after(8991, 0.999)


@pytest.mark.mpi
@pytest.mark.parametrize("exchange", ["float32", "dynamic8"])
def test_all_ranks_hold_the_same_average(make_world: MakeWorld, exchange: str) -> None:
    world = make_world(steps=3, ema=0.9, exchange=exchange, checkpoint_every="9", batch_size=12)
    agree = world.wire.agree
    for t in range(3):
        loop.one_step(world, Progress(t))
    assert world.local.average
    average = world.local.average.weights.download()
    moved = not np.array_equal(average, world.local.graph.weights.download())
    found = agree.gather_facts([hashlib.sha256(average.tobytes()).hexdigest(), moved])
    assert found == [[found[0][0], True]] * world.wire.ranks.size


def test_a_run_evaluates_with_it_and_trains_without(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(steps=8, ema=0.9)
    progress = trained(world)
    plain = trained(make_world(steps=8, out=str(tmp_path / "plain")))
    assert progress.hashes == plain.hashes
    assert progress.scores and plain.scores and progress.scores.loss != plain.scores.loss
    path = world.plan.folder / "checkpoints" / "step-00000008.safetensors"
    with Reader(path) as reader:
        names = reader.weights(averaged=True)
        average = reader.read(names["fc1.weight"])
        raw = reader.read(reader.weights()["fc1.weight"])
    assert reader.averaged and names["fc1.weight"] == "ema/fc1.weight"
    for averaged, wanted in ((True, average), (False, raw)):
        model = mpitrain.load(path, averaged=averaged)
        found = model.graph.view(model.graph.weights, "fc1.weight").download()
        np.testing.assert_array_equal(found, wanted)


def test_it_goes_on_bit_for_bit(make_world: MakeWorld, tmp_path: Path) -> None:
    words = {"ema": 0.9, "nesterov": True, "clip_norm": 0.5}
    straight = make_world(steps=5, **words)
    trained(straight)
    half = {**words, "out": str(tmp_path / "half")}
    trained(make_world(steps=2, **half))
    resumed = make_world(steps=5, resume="newest", **half)
    progress = trained(resumed)
    assert progress.hashes == (straight.state.sha256(),)
    assert straight.local.average and resumed.local.average
    np.testing.assert_array_equal(
        resumed.local.average.weights.download(), straight.local.average.weights.download()
    )


def test_a_run_that_kept_none_before_begins_with_its_weights(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    trained(make_world(steps=2))
    world = make_world(steps=3, ema=0.9, resume="newest")
    assert world.local.average
    np.testing.assert_array_equal(
        world.local.average.weights.download(), world.local.graph.weights.download()
    )
