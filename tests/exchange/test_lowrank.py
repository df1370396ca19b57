"""Low-rank factors: one set of weights everywhere, the best of a subspace, and no gradient lost."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from ranks import IMAGES, LENGTH, Model, digest, open_cpu, true_mean, values

from mpitrain.engine.engine import Engine
from mpitrain.exchange.bucket import Bucket, Matrix
from mpitrain.exchange.codec import make_scale
from mpitrain.exchange.codec_protocol import BLOCK
from mpitrain.exchange.factors import Factors, first_basis
from mpitrain.exchange.registry import find
from mpitrain.exchange.residuals import Residuals
from mpitrain.job.errors import UserError
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

Values = NDArray[np.float32]
WIDE, TALL, SMALL = Matrix(0, 30, 600), Matrix(0, 60, 333), Matrix(40 * BLOCK, 10, 12)
BUCKETS = [
    Bucket(0, 41 * BLOCK, 77 * BLOCK, True, (WIDE,)),
    Bucket(1, 0, 41 * BLOCK, True, (TALL, SMALL)),
    Bucket(2, 77 * BLOCK, LENGTH, False),
]
"""Factors of SMALL would be no smaller by half; the third bucket is biases."""
RANK = 3
KIND = f"lowrank:{RANK}"
EACH = pytest.mark.parametrize("kind", [KIND, f"lowrank8:{RANK}"])


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def places() -> list[tuple[Matrix, slice]]:
    """Each matrix, and where it lies in the flat vector."""
    return [
        (m, slice(b.start + m.start, b.start + m.start + m.rows * m.columns))
        for b in BUCKETS
        for m in b.matrices
    ]


def without_gaps(gradient: Values) -> None:
    """What lies between tensors is zero, as in any gradient."""
    there = np.zeros(LENGTH, bool)
    there[77 * BLOCK :] = True
    for _, place in places():
        there[place] = True
    gradient[~there] = 0


def total(size: int, t: int) -> NDArray[np.float64]:
    """The sum of all ranks' gradients of step t."""
    mean = true_mean(size, t).astype(np.float64) * IMAGES
    kept = np.ones(LENGTH, np.float32)
    without_gaps(kept)
    return mean * kept


def model_of(wire: Wire, device: Engine | None = None, kind: str = KIND) -> Model:
    return Model(wire, kind, "replicated", device, BUCKETS)


@pytest.mark.mpi
@EACH
@pytest.mark.parametrize("name", ["cpu", "pocl as a gpu"])
def test_every_rank_holds_the_same_weights_and_two_runs_make_the_same_bytes(
    wire: Wire, name: str, kind: str
) -> None:
    found = []
    for delay in (0.0, 0.002):
        wire.ranks.delay.seconds = delay
        model = model_of(wire, open_cpu(name), kind)
        for t in range(3):
            model.step(t, without_gaps)
        found += wire.agree.gather_facts(digest(model.weights.download()))
    wire.ranks.delay.seconds = 0.0
    assert len(set(found)) == 1


@pytest.mark.mpi
@EACH
def test_ranks_on_unlike_devices_hold_the_same_weights(wire: Wire, kind: str) -> None:
    model = model_of(wire, open_cpu("pocl as a gpu" if wire.ranks.rank % 2 else "cpu"), kind)
    for t in range(3):
        model.step(t, without_gaps)
    assert len(set(wire.agree.gather_facts(digest(model.weights.download())))) == 1


@pytest.mark.mpi
def test_the_mean_is_the_sum_seen_in_the_subspace_that_one_power_iteration_finds(
    wire: Wire,
) -> None:
    if wire.ranks.size == 1:
        return  # one rank exchanges nothing
    model = model_of(wire)
    model.step(0, without_gaps)
    summed, at = total(wire.ranks.size, 0), 0
    basis = first_basis([WIDE, TALL], RANK)
    for m, place in places():
        matrix = summed[place].reshape(m.rows, m.columns)
        if m is not SMALL:
            start = basis[at : at + RANK * m.columns].reshape(RANK, m.columns)
            at += -(-RANK * m.columns // 128) * 128
            orthonormal = np.linalg.qr(matrix @ start.T.astype(np.float64))[0]
            matrix = orthonormal @ (orthonormal.T @ matrix)
        mean = model.means[place].reshape(m.rows, m.columns)
        error = np.linalg.norm(mean - matrix / IMAGES) / np.linalg.norm(matrix / IMAGES)
        assert error < 2e-5, m
    np.testing.assert_allclose(
        model.means[77 * BLOCK :], summed[77 * BLOCK :] / IMAGES, rtol=1e-5, atol=1e-7
    )


@pytest.mark.mpi
def test_with_8_bits_the_mean_is_as_near_as_without_but_for_what_rounding_leaves_out(
    wire: Wire,
) -> None:
    """And rounding sends fewer bytes."""
    if wire.ranks.size == 1:
        return  # one rank exchanges nothing
    summed, found = total(wire.ranks.size, 0) / IMAGES, {}
    for kind in (KIND, f"lowrank8:{RANK}"):
        model = model_of(wire, kind=kind)
        report = model.step(0, without_gaps)
        found[kind] = np.linalg.norm((model.means - summed)[: 77 * BLOCK]), report.bytes_sent
        np.testing.assert_allclose(
            model.means[77 * BLOCK :], summed[77 * BLOCK :], rtol=1e-5, atol=1e-7
        )
    (exact, floats), (coded, codes) = found.values()
    assert coded < exact + 0.05 * np.linalg.norm(summed[: 77 * BLOCK])
    if wire.ranks.size > 1:
        assert codes < floats


@pytest.mark.mpi
def test_a_gradient_of_the_factors_rank_is_exact(wire: Wire) -> None:
    def low(gradient: Values) -> None:
        without_gaps(gradient)
        for m, place in places():
            random = np.random.default_rng([m.rows, wire.ranks.rank])
            shared = np.random.default_rng(m.rows).standard_normal((RANK, m.columns))
            gradient[place] = (random.standard_normal((m.rows, RANK)) @ shared).ravel()

    model = model_of(wire)
    model.step(0, low)
    mine = np.zeros(LENGTH, np.float32)
    low(mine)
    summed = wire.agree.sum(mine.astype(np.float64))
    scale = np.abs(summed[: 77 * BLOCK]).max() / IMAGES
    error = np.abs(model.means - summed / IMAGES)[: 77 * BLOCK].max()
    assert error < 2e-5 * scale


@pytest.mark.mpi
@EACH
def test_nothing_is_lost(wire: Wire, kind: str) -> None:
    if wire.ranks.size == 1:
        return  # one rank exchanges nothing
    model = model_of(wire, kind=kind)
    sent, true = np.zeros(LENGTH), np.zeros(LENGTH)
    for t in range(5):
        model.step(t, without_gaps)
        sent += model.means * IMAGES
        true += total(wire.ranks.size, t)
    unsent = wire.agree.sum(model.exchange.residuals()["unsent"].download().astype(np.float64))
    sent[: unsent.size] += unsent
    np.testing.assert_allclose(sent, true, atol=5e-6 * np.abs(true).max())
    assert np.abs(unsent).max() > 0


@pytest.mark.mpi
@EACH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_noticed_by_all(
    wire: Wire, value: float, kind: str
) -> None:
    if wire.ranks.size == 1:
        return  # one rank exchanges nothing
    model = model_of(wire, kind=kind)
    assert not model.spoilt(0, value)


@pytest.mark.mpi
@EACH
def test_restored_it_goes_on_as_if_nothing_had_happened(wire: Wire, kind: str) -> None:
    if wire.ranks.size == 1:
        return  # one rank exchanges nothing
    straight = model_of(wire, kind=kind)
    for t in range(4):
        straight.step(t, without_gaps)
    first = model_of(wire, kind=kind)
    for t in range(2):
        first.step(t, without_gaps)
    kept = {name: array.download() for name, array in first.exchange.residuals().items()}

    again = model_of(wire, kind=kind)
    again.weights.write(first.weights.download())
    size = wire.ranks.size
    mine = {("unsent", wire.ranks.rank): kept["unsent"], ("basis", 0): kept["basis"]}
    old = Residuals(lambda name, rank, a, b: mine[name, rank][a:b], BUCKETS, size, False, IMAGES)
    again.exchange.restore(old, 2)
    for t in range(2, 4):
        again.step(t, without_gaps)
    assert digest(again.weights.download()) == digest(straight.weights.download())


def test_what_more_ranks_have_left_out_goes_to_fewer_and_the_other_way_round() -> None:
    """Each old rank's part has one taker, whatever the numbers."""
    for before in range(1, 9):
        for size in range(1, 9):
            takers = [old for rank in range(size) for old in range(rank, before, size)]
            assert sorted(takers) == list(range(before))


@pytest.mark.parametrize("rank", [1, 2, 4, 7])
@pytest.mark.parametrize(
    "shape", [(1, 40), (3, 5), (33, 16), (20, 17), (64, 130), (7, 1000), (130, 64)]
)
def test_the_three_products_are_right_on_every_device(
    device: Engine, rank: int, shape: tuple[int, int]
) -> None:
    rows, columns = shape
    m, random = Matrix(0, rows, columns), np.random.default_rng(0)
    r = min(rank, rows, columns)
    x, left_out = (random.standard_normal((rows, columns)).astype(np.float32) for _ in range(2))
    bucket = Bucket(0, 0, rows * columns, True, (m,))
    gradient, unsent = device.upload(x.ravel()), device.upload(left_out.ravel())
    basis = device.upload(first_basis([m], rank))
    factors = Factors(device, gradient, unsent, basis, bucket, [m], rank, make_scale(device))
    q = basis.download()[: r * columns].reshape(r, columns).astype(np.float64)
    summed = x.astype(np.float64) + left_out

    factors.multiply_right()
    p = factors.left.download()[: r * rows].reshape(r, rows)
    np.testing.assert_allclose(p, q @ summed.T, rtol=1e-5, atol=1e-4)
    with factors.left.host(write=True) as left:
        factors.make_orthonormal(left)
    p = factors.left.download()[: r * rows].reshape(r, rows).astype(np.float64)
    np.testing.assert_allclose(p @ p.T, np.eye(r), atol=1e-6)
    factors.multiply_left()
    own = factors.own.download()[: r * columns].reshape(r, columns)
    np.testing.assert_allclose(own, p @ summed, rtol=1e-5, atol=1e-4)
    factors.total.copy_from(factors.own)
    factors.rebuild(1.0)
    mean = gradient.download().reshape(shape)
    np.testing.assert_allclose(mean, p.T @ own, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(unsent.download().reshape(shape), summed - p.T @ own, atol=1e-5)


def test_the_mean_is_built_with_the_same_bits_on_every_device() -> None:
    m, found = Matrix(0, 50, 77), []
    for name in ("intel", "pocl", "pocl as a gpu"):
        device = open_cpu(name)
        size = -(-4 * 77 // 128) * 128
        zeros = device.zeros((m.rows * m.columns,))
        factors = Factors(
            device, zeros, device.zeros(zeros.shape), device.zeros((size,)),
            Bucket(0, 0, m.rows * m.columns, True, (m,)), [m], 4, make_scale(device),
        )  # fmt: skip
        factors.left.write(values(factors.left.size, 0))
        factors.total.write(values(size, 1))
        factors.rebuild(1.0)
        found.append(zeros.download().tobytes())
    assert len(set(found)) == 1


def test_a_column_that_nobody_has_anything_in_keeps_its_start() -> None:
    device, m = open_cpu(), Matrix(0, 4, 128)
    basis = device.upload(first_basis([m], 1))
    before = basis.download()
    gradient = device.zeros((512,))
    bucket, unsent = Bucket(0, 0, 512, True, (m,)), device.zeros((512,))
    factors = Factors(device, gradient, unsent, basis, bucket, [m], 1, make_scale(device))
    factors.start_next(np.zeros(128, np.float32))
    np.testing.assert_array_equal(basis.download(), before)
    factors.start_next(np.linspace(-3, 3, 128, dtype=np.float32))
    np.testing.assert_array_equal(basis.download(), np.linspace(-3, 3, 128, dtype=np.float32) / 4)


@pytest.mark.parametrize(
    "name", ["lowrank:0", "lowrank:33", "lowrank:two", "lowrank:-1", "lowrank8:0", "lowrank8:x"]
)
def test_a_rank_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--exchange {name}: expected a rank from 1 to 32"):
        find(name)


def test_other_exchanges_take_no_rank() -> None:
    with pytest.raises(UserError, match="--exchange float32:2: expected nothing after float32"):
        find("float32:2")


@pytest.mark.mpi
@EACH
def test_rank_0_alone_cannot_update(wire: Wire, kind: str) -> None:
    with pytest.raises(UserError, match="every rank has the mean; expected update replicated"):
        Model(wire, kind, "root", buckets=BUCKETS)
