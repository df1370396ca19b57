"""A step's exchange, on any number of ranks: one set of weights everywhere, and the mean within its
bound."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import (
    BUCKETS,
    IMAGES,
    LENGTH,
    MANY,
    Model,
    assert_nothing_is_lost,
    digest,
    open_cpu,
    true_mean,
    values,
)

from mpitrain.exchange.exchange import Exchange
from mpitrain.exchange.one_host import SharedWindow
from mpitrain.exchange.plain import Float32
from mpitrain.exchange.registry import is_lossy
from mpitrain.exchange.residuals import Residuals
from mpitrain.job.errors import UserError
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

pytestmark = pytest.mark.mpi

STARS = [("star-float32", "root"), ("star-dynamic8", "root")]
WAYS = [
    *(
        (kind, update)
        for kind in ("float32", "float16", "dynamic8", "window", "exact")
        for update in ("root", "replicated")
    ),
    *STARS,
]


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_every_rank_holds_the_same_weights_after_each_step(
    wire: Wire, kind: str, update: str
) -> None:
    model = Model(wire, kind, update)
    wire.ranks.delay.seconds = 0.002
    for t in range(3):
        model.step(t)
        assert len(set(wire.agree.gather_facts(digest(model.weights.download())))) == 1
    wire.ranks.delay.seconds = 0.0


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_two_runs_make_the_same_bytes(wire: Wire, kind: str, update: str) -> None:
    found = []
    for delay in (0.0, 0.002):
        wire.ranks.delay.seconds = delay
        model = Model(wire, kind, update)
        model.step(0)
        model.step(1)
        found.append(digest(model.weights.download()))
    wire.ranks.delay.seconds = 0.0
    assert found[0] == found[1]


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_devices_with_memory_of_their_own_make_the_same_bytes(
    wire: Wire, kind: str, update: str
) -> None:
    """On all ranks, or on every other one beside CPUs."""
    found = []
    for devices in (("cpu",), ("pocl as a gpu",), ("cpu", "pocl as a gpu")):
        model = Model(wire, kind, update, open_cpu(devices[wire.ranks.rank % len(devices)]))
        model.step(0)
        model.step(1)
        found.append((digest(model.weights.download()), digest(model.means)))
        model.exchange.close()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_the_error_of_the_mean_stays_within_its_bound(wire: Wire, kind: str, update: str) -> None:
    model = Model(wire, kind, update)
    report = model.step(0)
    has_mean = update == "replicated" or wire.ranks.rank == 0
    error = np.abs(model.means - true_mean(wire.ranks.size, 0)).max() if has_mean else 0.0
    rounding = 1e-6 * np.abs(model.means).max()
    assert error <= report.error_bound + rounding
    assert report.finite
    assert (report.error_bound > 0) == (has_mean and is_lossy(kind) and wire.ranks.size > 1)


@pytest.mark.parametrize(("kind", "update"), [way for way in WAYS if not is_lossy(way[0])])
def test_exact_kinds_make_the_plain_mean(wire: Wire, kind: str, update: str) -> None:
    model = Model(wire, kind, update)
    report = model.step(0)
    if update == "replicated" or wire.ranks.rank == 0:
        np.testing.assert_allclose(model.means, true_mean(wire.ranks.size, 0), rtol=1e-4, atol=1e-7)
        start = values(LENGTH, 99)
        np.testing.assert_allclose(
            model.weights.download(), start - 0.01 * true_mean(wire.ranks.size, 0), atol=1e-5
        )
    if wire.ranks.size == 1:
        assert report.bytes_sent == 0


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_what_rounding_leaves_out_is_sent_later(wire: Wire, update: str) -> None:
    model = Model(wire, "dynamic8", update)
    total, true, single = np.zeros(LENGTH), np.zeros(LENGTH), 0.0
    steps = 12
    for _ in range(steps):
        model.step(0)
        total += model.means
        true += true_mean(wire.ranks.size, 0)
        single = single or float(np.linalg.norm(model.means - true_mean(wire.ranks.size, 0)))
    if (update == "replicated" or wire.ranks.rank == 0) and wire.ranks.size > 1:
        assert (
            np.linalg.norm(total - true) < 4 * single
        )  # twelve times as much without error feedback


def test_weights_follow_the_master(wire: Wire) -> None:
    model = Model(wire, "dynamic8", "root")
    for t in range(6):
        model.step(t)
    if model.master is not None:
        far = np.abs(model.master.download() - model.weights.download())
        moved = np.abs(model.master.download() - values(LENGTH, 99))
        assert 0 < far.max() < 0.01 * moved.max()


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_coded_steps_send_a_quarter(wire: Wire, update: str) -> None:
    if wire.ranks.size == 1:
        pytest.skip("one rank sends nothing")
    plain = sum(wire.agree.gather_facts(Model(wire, "float32", update).step(0).bytes_sent))
    coded = sum(wire.agree.gather_facts(Model(wire, "dynamic8", update).step(0).bytes_sent))
    # Three blocks in eighty are not coded, and with three ranks owners add a hop on the way to rank
    # 0.
    assert coded < 0.36 * plain


@pytest.mark.parametrize("update", ["root", "replicated"])
@pytest.mark.parametrize("kind", ["float16", "dynamic8"])
def test_all_ranks_learn_of_a_gradient_that_is_not_finite(
    wire: Wire, kind: str, update: str
) -> None:
    if wire.ranks.size == 1:
        pytest.skip("nothing is coded")
    model = Model(wire, kind, update)
    assert model.step(0).finite
    assert not model.spoilt(1, np.nan)
    for residual in model.exchange.residuals().values():
        assert np.isfinite(residual.download()).all()


@pytest.mark.parametrize("update", ["root", "replicated"])
def test_restored_residuals_go_on_as_if_nothing_had_happened(wire: Wire, update: str) -> None:
    one = Model(wire, "dynamic8", update)
    one.step(0)
    saved = {name: array.download() for name, array in one.exchange.residuals().items()}

    def read(name: str, rank: int, start: int, stop: int) -> np.ndarray:
        assert rank == wire.ranks.rank, "as many ranks as before keep their own"
        return saved[name][start:stop]

    two = Model(wire, "dynamic8", update)
    two.weights.write(one.weights.download())
    if one.master is not None and two.master is not None:
        two.master.write(one.master.download())
    two.exchange.restore(Residuals(read, BUCKETS, wire.ranks.size, wire.ranks.size > 2, 60), 1)
    one.step(1)
    two.step(1)
    assert digest(one.weights.download()) == digest(two.weights.download())


def test_owned_ranges_cover_the_coded_part_once(wire: Wire) -> None:
    model = Model(wire, "dynamic8", "root")
    ranges = sorted(
        tuple(each) for found in wire.agree.gather_facts(model.owned()) for each in found
    )
    covered = [place for start, stop in ranges for place in range(start, stop)]
    if wire.ranks.size > 2:
        assert covered == list(range(77 * 512))
        assert model.exchange.residuals()["owner"].size == sum(b - a for a, b in model.owned())
    else:
        assert covered == []


@pytest.mark.parametrize(("kind", "update"), WAYS)
def test_streaming_changes_no_byte(wire: Wire, kind: str, update: str) -> None:
    found = []
    for streaming in (True, False):
        wire.ranks.delay.seconds = 0.002 if streaming else 0.0
        model = Model(wire, kind, update, buckets=MANY, streaming=streaming)
        reports = [model.step(t) for t in range(3)]
        found.append([digest(model.weights.download()), *(report.bytes_sent for report in reports)])
        residuals = model.exchange.residuals()
        found[-1] += [digest(array.download()) for array in residuals.values()]
        if not streaming:
            assert all(report.hidden == 0 for report in reports)
        model.exchange.close()
    wire.ranks.delay.seconds = 0.0
    assert found[0] == found[1]


def test_a_bucket_waits_for_the_work_that_makes_it(wire: Wire) -> None:
    """What was queued before `send` is in the mean, although nobody has waited for it."""
    model = Model(wire, "dynamic8", "replicated")
    model.gradient.fill(0)
    for bucket in BUCKETS:
        model.gradient.part(bucket.start, bucket.stop).fill(float(IMAGES))
        model.exchange.send(bucket, IMAGES)
    model.exchange.finish()
    np.testing.assert_allclose(model.means, wire.ranks.size, rtol=0.02)


def test_the_wire_loses_nothing_that_rounding_leaves_out(wire: Wire) -> None:
    if wire.ranks.size > 1:
        assert_nothing_is_lost(wire)


@pytest.mark.parametrize(("kind", "update"), STARS)
def test_a_star_sends_everything_through_rank_0(wire: Wire, kind: str, update: str) -> None:
    sent = wire.agree.gather_facts(Model(wire, kind, update, buckets=MANY).step(0).bytes_sent)
    assert sent[0] == (wire.ranks.size - 1) * sum(sent[1:2])
    assert len(set(sent[1:])) <= 1


def test_it_is_busy_until_all_buckets_have_come_to_their_end(wire: Wire) -> None:
    model = Model(wire, "dynamic8", "root")
    if wire.ranks.rank:
        wire.agree.barrier()  # rank 0 has nobody to send to, or to hear from, until then
    assert not model.exchange.busy()
    for bucket in BUCKETS:
        model.exchange.send(bucket, IMAGES)
    if wire.ranks.rank == 0:
        assert model.exchange.busy() == (wire.ranks.size > 1)
        wire.agree.barrier()
    model.exchange.finish()
    assert not model.exchange.busy()


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("devices", [("cpu",), ("pocl as a gpu",), ("cpu", "pocl as a gpu")])
@pytest.mark.parametrize("update", ["root", "replicated"])
def test_shared_memory_adds_in_rank_order(
    wire: Wire, update: str, devices: tuple[str, ...], streaming: bool
) -> None:
    """On devices with memory of their own, too, which copy and add up themselves, and where ranks
    have unlike ones."""
    device = open_cpu(devices[wire.ranks.rank % len(devices)])
    model = Model(wire, "window", update, device, MANY, streaming)
    wire.ranks.delay.seconds = 0.002
    for t in range(2):
        model.step(t)
        total = values(LENGTH, 0, t)
        for rank in range(1, wire.ranks.size):
            total = total + values(LENGTH, rank, t)
        if update == "replicated" or wire.ranks.rank == 0:
            np.testing.assert_array_equal(model.means, total * np.float32(1 / IMAGES))
        assert len(set(wire.agree.gather_facts(digest(model.weights.download())))) == 1
    wire.ranks.delay.seconds = 0.0
    model.exchange.close()


@pytest.mark.parametrize(
    ("devices", "times"), [(("cpu",), 1), (("pocl as a gpu",), 2), (("cpu", "pocl as a gpu"), 2)]
)
def test_devices_with_memory_of_their_own_have_longer_buckets(
    wire: Wire, devices: tuple[str, ...], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all ranks alike, and where there is room."""
    device = open_cpu(devices[wire.ranks.rank % len(devices)])
    alone = wire.ranks.size == 1
    assert SharedWindow.longest(wire, device, 1 << 12) == (1 if alone else times) << 12
    assert Float32.longest(wire, device, 1 << 12) == 1 << 12
    monkeypatch.setattr(wire.shared, "has_room", lambda count: False)
    assert SharedWindow.longest(wire, device, 1 << 12) == 1 << 12


def test_little_shared_memory_is_said(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(Model(wire, "window", "root").exchange) == ""
    monkeypatch.setattr(wire.shared, "has_room", lambda count: False)
    said = "short of shared memory: room for 2 buckets" if wire.ranks.size > 1 else ""
    assert str(Model(wire, "window", "root").exchange) == said


def test_shared_memory_that_is_not_there_is_refused_on_all_ranks(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wire.ranks.size == 1:
        pytest.skip("one rank shares nothing")
    assert wire.shared.has_room(1 << 10)
    assert not wire.shared.has_room(1 << 50)
    with pytest.raises(UserError, match="MiB of shared memory wanted, "):
        wire.shared.share(1 << 50)
    monkeypatch.setattr(wire.ranks, "one_host", False)
    with pytest.raises(UserError, match="on several hosts"):
        wire.shared.share(1 << 50)


def test_what_fails_in_the_thread_is_raised_by_finish(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wire.ranks.size == 1:
        pytest.skip("one rank has no thread")
    model = Model(wire, "float32", "replicated")
    monkeypatch.setattr(model, "set_out", lambda gradient: 1 / 0)
    model.exchange.send(BUCKETS[0], IMAGES)
    with pytest.raises(ZeroDivisionError):
        model.exchange.finish()


def test_an_unknown_kind_is_refused(wire: Wire) -> None:
    model = Model(wire, "float32", "root")
    for kind, update, words in (
        ("int4", "root", "exchange int4"),
        ("float32", "star", "update star"),
        ("star-float32", "replicated", "rank 0 has the mean alone"),
    ):
        with pytest.raises(UserError, match=words):
            Exchange(
                wire,
                model.device,
                model.weights,
                model.gradient,
                BUCKETS,
                kind,
                update,
                model,
                None,
            )
    assert IMAGES
