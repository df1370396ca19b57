"""What is measured of a step's coding, on any number of ranks: the true error of the mean, and what
became zero."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ranks import BUCKETS, IMAGES, LENGTH, Model, true_mean, values

from mpitrain.exchange import mean
from mpitrain.job.errors import RunError
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire
from mpitrain.training.hooks import compare
from mpitrain.training.hooks.compare import EVERY, Health, choose_sample

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def health_of(model: Model) -> Health:
    slots = {
        "first": SimpleNamespace(start=0, stop=LENGTH // 2),
        "second": SimpleNamespace(start=LENGTH // 2, stop=LENGTH),
    }
    graph: Any = SimpleNamespace(weights=model.weights, layout=SimpleNamespace(slots=slots))
    return Health(model.wire, graph, model.exchange, IMAGES)


WAYS = [
    ("dynamic8", "root"),
    ("dynamic8", "replicated"),
    ("float16", "root"),
    ("star-dynamic8", "root"),
]


@pytest.mark.parametrize(("kind", "update"), WAYS)
@pytest.mark.parametrize("turn", range(3))
def test_the_measured_error_is_the_error_and_within_the_bound(
    wire: Wire, kind: str, update: str, turn: int
) -> None:
    model = Model(wire, kind, update)
    health = health_of(model)
    choose_sample(model.exchange, turn * EVERY)
    report = model.step(0)
    found = health.measures()
    bound = wire.agree.table(np.array([report.error_bound])).max()
    if wire.ranks.size == 1:
        assert not found
        return
    bucket = BUCKETS[turn]
    assert found["sampled_bucket"] == bucket.number
    here = slice(bucket.start, bucket.stop)
    error = np.abs(model.means - true_mean(wire.ranks.size, 0))[here].max()
    has_mean = update == "replicated" or wire.ranks.rank == 0
    error = wire.agree.table(np.array([error if has_mean else 0.0])).max()
    rounding = 1e-6 * np.abs(true_mean(wire.ranks.size, 0)).max()
    assert abs(found["measured_error"] - error) <= rounding
    assert 0 < found["measured_error"] <= bound + rounding
    assert found["residual_norm"] > 0
    assert 0 <= found["flushed"] <= 1
    assert not health.measures()


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_of_a_long_bucket_the_first_values_are_looked_at(
    wire: Wire, update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns them, and some ranks own none of these."""
    looked_at = 9 * 512
    for module in (compare, mean):
        monkeypatch.setattr(module, "LOOKED_AT_VALUES", looked_at)
    model = Model(wire, "dynamic8", update)
    health = health_of(model)
    start = BUCKETS[0].start

    def change(gradient: np.ndarray) -> None:
        gradient[start : BUCKETS[0].stop] = 1e-12
        gradient[start : start + looked_at : 512] = 1.0  # and behind these nothing is coded as zero

    choose_sample(model.exchange, 0)
    model.step(0, change)
    found = health.measures()
    if wire.ranks.size == 1:
        return
    assert found["flushed"] == pytest.approx(511 / 512)
    choose_sample(model.exchange, 0)
    model.step(0)
    found = health.measures()
    error = np.abs(model.means - true_mean(wire.ranks.size, 0))[start : start + looked_at].max()
    error = wire.agree.from_root(lambda: float(error))
    rounding = 1e-6 * np.abs(true_mean(wire.ranks.size, 0)).max()
    assert abs(found["measured_error"] - error) <= rounding


def test_looks_leave_nothing_behind(wire: Wire) -> None:
    model = Model(wire, "dynamic8", "root")
    health = health_of(model)

    def held() -> list[int]:
        arrays = [model.weights, *model.exchange.residuals().values()]
        devices = {id(each.device): each.device for each in arrays}.values()
        return [each.allocated for each in devices] + [len(a.memory.launches) for a in arrays]

    before: list[int] = []
    for t in range(3):
        choose_sample(model.exchange, 0)
        model.step(t)
        before = before or held()
        health.compare(50)
        health.measures()
    assert held() == before


def test_small_values_beside_a_large_one_are_counted_as_flushed(wire: Wire) -> None:
    if wire.ranks.size == 1:
        pytest.skip("one rank codes nothing")
    model = Model(wire, "dynamic8", "root")
    health = health_of(model)
    bucket = BUCKETS[2]

    def change(gradient: np.ndarray) -> None:
        gradient[bucket.start : bucket.stop] = 1e-12
        gradient[bucket.start : bucket.stop : 512] = 1.0
        gradient[bucket.start + 1 : bucket.stop : 512] = 0.0  # a zero stays what it is

    choose_sample(model.exchange, 2 * EVERY)
    model.step(0, change)
    assert health.measures()["flushed"] == pytest.approx(510 / 512)


def test_the_first_tensor_that_differs_is_named_on_every_rank(wire: Wire) -> None:
    if wire.ranks.size == 1:
        pytest.skip("one rank has nobody to differ from")
    model = Model(wire, "float32", "root")
    health = health_of(model)
    health.compare(50)
    last = wire.ranks.size - 1
    weights = values(LENGTH, 99)
    if wire.ranks.rank == last:
        weights.view(np.uint32)[LENGTH // 2 + 3] ^= 1
    model.weights.write(weights)
    with pytest.raises(
        RunError, match=f"step 50: weights differ between rank 0 and rank {last}, first in second"
    ) as raised:
        health.compare(50)
    assert raised.value.agreed
