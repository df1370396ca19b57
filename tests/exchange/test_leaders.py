"""Several ranks a host: one of each codes for all of them. The ranks of this host are divided among
hosts that are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from ranks import (
    BUCKETS,
    IMAGES,
    LENGTH,
    MANY,
    Model,
    assert_nothing_is_lost,
    coded_once,
    digest,
    open_cpu,
    true_mean,
    values,
)

from mpitrain.exchange.allreduce import allreduce
from mpitrain.exchange.by_message import ByMessage
from mpitrain.exchange.carrier import Place
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.mean import Mean
from mpitrain.exchange.residuals import Residuals
from mpitrain.job.errors import RunError
from mpitrain.mpi import shared as module
from mpitrain.mpi.connect import over
from mpitrain.mpi.hops import complete
from mpitrain.mpi.hosts import host_wires
from mpitrain.mpi.wire import Wire, make
from mpitrain.training.hooks.compare import Health, choose_sample

RANKS = MPI.COMM_WORLD.size
pytestmark = pytest.mark.mpi(min_size=3)
LAYOUTS = {
    "pairs": [rank // 2 for rank in range(RANKS)],
    "one alone": [min(1, RANKS - 1 - rank) for rank in range(RANKS)],
    "in turn": [rank % 2 for rank in range(RANKS)],
}
"""The host of each rank."""
WAYS = [(kind, update) for kind in ("float16", "dynamic8") for update in ("root", "replicated")]


@pytest.fixture(scope="module", params=LAYOUTS)
def wire(request: pytest.FixtureRequest) -> Wire:
    return made_up(request.param)


def made_up(layout: str) -> Wire:
    return make(MPI.COMM_WORLD, host=LAYOUTS[layout][MPI.COMM_WORLD.rank])


def leaders_of(wire: Wire) -> list[int]:
    """The first rank of each host, in order."""
    hosts: list[str] = wire.agree.gather_facts(wire.ranks.host)
    return [rank for rank, host in enumerate(hosts) if host not in hosts[:rank]]


def sums_of_hosts(wire: Wire, t: int) -> list[np.ndarray]:
    """What each leader has to send in step t: its host's gradients added up in rank order."""
    hosts: list[str] = wire.agree.gather_facts(wire.ranks.host)
    sums: dict[str, np.ndarray] = {}
    for rank, host in enumerate(hosts):
        own = values(LENGTH, rank, t)
        sums[host] = sums[host] + own if host in sums else own
    return list(sums.values())


def test_one_rank_of_each_host_codes(wire: Wire) -> None:
    exchange = Model(wire, "dynamic8", "root").exchange
    leaders = leaders_of(wire)
    assert 1 < len(leaders) < wire.ranks.size
    assert (exchange.coder_index, exchange.coder_count) == (
        leaders.index(wire.ranks.rank) if wire.ranks.rank in leaders else -1,
        len(leaders),
    )
    assert str(exchange) == f"between {len(leaders)} hosts, shared memory within"
    sender = exchange.residuals()["sender"].size
    assert sender == (
        sum(b.stop - b.start for b in BUCKETS if b.coded) if wire.ranks.rank in leaders else 0
    )
    assert str(Model(wire, "star-dynamic8", "root").exchange) == ""


def test_neighbours_are_the_ranks_of_a_host_in_order(wire: Wire) -> None:
    hosts: list[str] = wire.agree.gather_facts(wire.ranks.host)
    assert wire.agree.neighbours(wire.ranks.rank) == [
        rank for rank, host in enumerate(hosts) if host == wire.ranks.host
    ]


@pytest.mark.parametrize("name", ["cpu", "pocl as a gpu"])
@pytest.mark.parametrize("update", ["root", "replicated"])
def test_the_mean_is_that_of_the_hosts_sums_bit_for_bit(wire: Wire, update: str, name: str) -> None:
    """Also where devices copy to and from the memory of their host by themselves."""
    model = Model(wire, "dynamic8", update, open_cpu(name))
    model.step(0)
    model.exchange.close()
    sums = sums_of_hosts(wire, 0)
    if update == "root" and wire.ranks.rank:
        return
    for bucket in BUCKETS[:-1]:
        here = slice(bucket.start, bucket.stop)
        total = coded_once(sums[0][here])
        for each in sums[1:]:
            total = total + coded_once(each[here])
        mean = total * np.float32(1 / IMAGES)
        np.testing.assert_array_equal(
            model.means[here], mean if len(sums) == 2 else coded_once(mean)
        )


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_every_rank_holds_the_same_weights_with_delays_and_without_streaming(
    wire: Wire, kind: str, update: str
) -> None:
    found = []
    for streaming in (True, False):
        wire.ranks.delay.seconds = 0.002 if streaming else 0.0
        model = Model(wire, kind, update, buckets=MANY, streaming=streaming)
        reports = []
        for t in range(3):
            reports.append(model.step(t))
            assert len(set(wire.agree.gather_facts(digest(model.weights.download())))) == 1
        found.append([digest(model.weights.download()), *(report.bytes_sent for report in reports)])
        found[-1] += [digest(array.download()) for array in model.exchange.residuals().values()]
        model.exchange.close()
    wire.ranks.delay.seconds = 0.0
    assert found[0] == found[1]


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_the_error_of_the_mean_stays_within_its_bound_on_every_rank(
    wire: Wire, kind: str, update: str
) -> None:
    model = Model(wire, kind, update)
    report = model.step(0)
    has_mean = update == "replicated" or wire.ranks.rank == 0
    error = np.abs(model.means - true_mean(wire.ranks.size, 0)).max() if has_mean else 0.0
    assert error <= report.error_bound + 1e-6 * np.abs(model.means).max()
    assert (report.error_bound > 0) == has_mean


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_all_ranks_learn_of_a_gradient_that_is_not_finite(
    wire: Wire, kind: str, update: str
) -> None:
    model = Model(wire, kind, update)
    assert model.step(0).finite
    assert not model.spoilt(1, np.inf)
    for residual in model.exchange.residuals().values():
        assert np.isfinite(residual.download()).all()


def test_nothing_that_rounding_leaves_out_is_lost(wire: Wire) -> None:
    assert_nothing_is_lost(wire)


def test_between_hosts_travels_what_as_many_ranks_would_send(wire: Wire) -> None:
    """The rest is in shared memory, and counted with it."""
    model = Model(wire, "dynamic8", "replicated", buckets=MANY[:-1])
    _, between = host_wires(wire)
    before = between.bytes_sent if between else 0
    report = model.step(0)
    outside = between.bytes_sent - before if between else 0
    inside = sum(4 * (bucket.stop - bucket.start) for bucket in MANY[:-1])
    alone = wire.ranks.local_size == 1
    assert report.bytes_sent == outside + (0 if alone else inside * (2 if between else 1))
    if between is not None:
        flat = Model(between, "dynamic8", "replicated", buckets=MANY[:-1])
        assert flat.step(0).bytes_sent == outside


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_restored_residuals_go_on_as_if_nothing_had_happened(wire: Wire, update: str) -> None:
    one = Model(wire, "dynamic8", update)
    one.step(0)
    saved = {name: array.download() for name, array in one.exchange.residuals().items()}
    number, count = one.exchange.coder_index, one.exchange.coder_count

    def read(name: str, rank: int, start: int, stop: int) -> np.ndarray:
        assert rank == number, "as many ranks as before keep their own"
        return saved[name][start:stop]

    two = Model(wire, "dynamic8", update)
    two.weights.write(one.weights.download())
    if one.master is not None and two.master is not None:
        two.master.write(one.master.download())
    two.exchange.restore(Residuals(read, BUCKETS, count, count > 2, 60), 1)
    one.step(1)
    wire.agree.barrier()
    two.step(1)
    assert digest(one.weights.download()) == digest(two.weights.download())


def test_the_measured_error_is_the_error(wire: Wire) -> None:
    model = Model(wire, "dynamic8", "root")
    graph: Any = SimpleNamespace(
        weights=model.weights,
        layout=SimpleNamespace(slots={"all": SimpleNamespace(start=0, stop=LENGTH)}),
    )
    health = Health(wire, graph, model.exchange, IMAGES)
    choose_sample(model.exchange, 0)
    report = model.step(0)
    health.compare(1)
    found = health.measures()
    assert bool(found) == (wire.ranks.rank in leaders_of(wire))
    if wire.ranks.rank == 0:
        here = slice(BUCKETS[0].start, BUCKETS[0].stop)
        error = np.abs(model.means - true_mean(wire.ranks.size, 0))[here].max()
        assert found["measured_error"] == pytest.approx(
            error, abs=1e-6 * float(np.abs(model.means).max())
        )
        assert 0 < found["measured_error"] <= report.error_bound
        assert 0 <= found["flushed"] <= 1
        assert found["residual_norm"] > 0


def test_a_host_without_room_makes_every_rank_code(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = made_up("pairs")
    if wire.ranks.host.endswith("/0"):
        monkeypatch.setattr(module, "FREE_SHARE_MAX", 0.0)
    model = Model(wire, "dynamic8", "root")
    assert model.exchange.coder_index == wire.ranks.rank
    assert model.exchange.coder_count == wire.ranks.size
    assert str(model.exchange) == "every rank codes, as hosts lack shared memory"
    model.step(0)
    assert len(set(wire.agree.gather_facts(digest(model.weights.download())))) == 1


def test_a_damaged_message_names_its_sender_as_the_job_counts_ranks() -> None:
    wire = made_up("pairs")
    _, between = host_wires(wire)
    if between is not None:
        last = between.ranks.size - 1
        device = open_cpu()
        x = device.upload(values(20 * 512, wire.ranks.rank))
        codec = make_codec("dynamic8", device)
        mean = Mean(ByMessage(between.transfer, codec), codec, to_all=True)
        step = 5 if between.ranks.rank == last else 4
        with pytest.raises(RunError, match="expected step") as caught:
            complete(mean.hops(x, IMAGES, Place(step, 2)))
        if between.ranks.rank != last:
            assert f"message from rank {2 * last}: expected step 4, got 5" in str(caught.value)
    wire.agree.barrier()


@pytest.fixture(scope="module", params=LAYOUTS)
def comm(request: pytest.FixtureRequest) -> MPI.Intracomm:
    made = MPI.COMM_WORLD.Dup()
    over(made, host=LAYOUTS[request.param][made.rank])
    return made


@pytest.mark.parametrize("kind", ["float16", "dynamic8", "auto"])
@pytest.mark.parametrize("size", [1, 513, 40_000, 2_200_000])
def test_a_vector_by_itself_has_the_same_mean_everywhere(
    comm: MPI.Intracomm, kind: str, size: int
) -> None:
    wire = over(comm)
    assert 1 < wire.ranks.hosts < wire.ranks.size
    vector = values(size, wire.ranks.rank)
    mean = allreduce(vector, comm, kind)
    assert len(set(wire.agree.gather_facts(digest(mean)))) == 1
    parts = [values(size, rank) for rank in range(wire.ranks.size)]
    true = sum(part.astype(np.float64) for part in parts) / wire.ranks.size
    # A host's sum has scales of its own, which no rank's exceeds.
    largest = max(np.abs(part).max() for part in parts) * max(
        LAYOUTS["pairs"].count(0), wire.ranks.size
    )
    assert np.abs(mean - true).max() <= 0.02 * largest
    if kind == "dynamic8":
        again = allreduce(vector, comm, kind, out=vector)
        assert digest(again) == digest(mean)


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_clipping_waits_for_all_vectors_of_all_hosts(wire: Wire, kind: str, update: str) -> None:
    """More buckets than shared memory has slots, each spread after all were gathered."""
    found = []
    for streaming in (True, False):
        model = Model(wire, kind, update, buckets=MANY, streaming=streaming, clip_norm=1.0)
        for t in range(2):
            wire.ranks.delay.seconds = 0.002 * (wire.ranks.rank % 2)
            model.step(t)
        found += wire.agree.gather_facts(digest(model.weights.download()))
    wire.ranks.delay.seconds = 0.0
    assert len(set(found)) == 1
