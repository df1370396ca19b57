"""Clipping by the norm of the whole mean: as PyTorch does it, on every rank, with any exchange."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from ranks import BUCKETS, LENGTH, MANY, Model, digest, open_cpu, true_mean, values

from mpitrain.engine.engine import Engine
from mpitrain.exchange.bucket import Bucket, Matrix
from mpitrain.exchange.clip import Clip
from mpitrain.exchange.codec_protocol import BLOCK
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire

WAYS = [
    *(
        (kind, update)
        for kind in ("float32", "float16", "dynamic8", "window")
        for update in ("root", "replicated")
    ),
    ("star-float32", "root"),
    ("star-dynamic8", "root"),
    ("lowrank:2", "replicated"),
    ("lowrank8:2", "replicated"),
]
LIMIT = 3.0


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def buckets_of(kind: str) -> list[Bucket]:
    """More than are on their way at once; for low-rank factors, of a matrix each."""
    if not kind.startswith("lowrank"):
        return MANY
    return [
        Bucket(each.number, each.start, each.stop, each.coded, (Matrix(0, 7, BLOCK),))
        if each.coded
        else each
        for each in MANY
    ]


def length(x: NDArray[np.float32]) -> float:
    return float(np.sqrt((x.astype(np.float64) ** 2).sum()))


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("kind", "update", "streaming", "name"),
    [
        *((*way, True, "cpu") for way in WAYS),
        ("dynamic8", "root", False, "cpu"),
        ("window", "root", False, "cpu"),
        ("window", "root", True, "pocl as a gpu"),
        ("window", "replicated", True, "pocl as a gpu"),
    ],
)
def test_clipped_means_are_shrunk_alike_on_every_rank(
    wire: Wire, kind: str, update: str, streaming: bool, name: str
) -> None:
    """Over three steps: the means of an exchange that does not clip, times one factor."""
    buckets, means, sound, device = buckets_of(kind), [], [], open_cpu(name)
    wire.ranks.delay.seconds = 0.001
    plain = Model(wire, kind, update, device, buckets, streaming)
    for t in range(3):
        plain.step(t)
        means.append(plain.means.copy())
    # Not before: ranks share one memory.
    clipped = Model(wire, kind, update, device, buckets, streaming, LIMIT)
    for t, mean in enumerate(means):
        report = clipped.step(t)
        if update == "root" and wire.ranks.rank:
            sound.append(report.gradient_norm is None)
            continue
        norm = length(mean)
        assert report.gradient_norm is not None
        sound += [
            report.finite,
            norm > LIMIT,
            abs(report.gradient_norm / norm - 1) < 1e-6,
            np.allclose(clipped.means, mean * (LIMIT / (norm + 1e-6)), rtol=1e-6),
        ]
    wire.ranks.delay.seconds = 0.0
    hashes = wire.agree.gather_facts([digest(clipped.weights.download()), all(sound)])
    assert hashes == [[hashes[0][0], True]] * wire.ranks.size


@pytest.mark.mpi
@pytest.mark.parametrize(("kind", "update"), [("float32", "root"), ("dynamic8", "replicated")])
def test_what_is_short_enough_moves_as_without_clipping(wire: Wire, kind: str, update: str) -> None:
    """Bit for bit."""
    found = []
    for limit in (None, 1e6):
        model = Model(wire, kind, update, clip_norm=limit)
        model.step(0)
        model.step(1)
        found += wire.agree.gather_facts(digest(model.weights.download()))
    assert len(set(found)) == 1


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["float32", "dynamic8"])
def test_a_gradient_that_is_not_finite_is_told(wire: Wire, kind: str) -> None:
    """Also where nothing is coded, for the norm shows it."""
    model = Model(wire, kind, "replicated", clip_norm=LIMIT)
    finite = model.spoilt(0, np.nan)
    assert wire.agree.gather_facts(finite) == [False] * wire.ranks.size


def test_a_vector_is_clipped_as_pytorch_does_it(device: Engine) -> None:
    """torch.nn.utils.clip_grad_norm_, written out in float64; a length that is no whole block."""
    for size in (7, 512, 40 * 512 + 33):
        x = values(size, 3, spread=1e-3)
        vector = device.upload(x)
        norm = length(x)
        clip = Clip(device, norm / 3, vector, None)
        assert clip() == pytest.approx(norm, rel=1e-6)
        wanted = x.astype(np.float64) * (norm / 3 / (norm + 1e-6))
        np.testing.assert_allclose(vector.download(), wanted, rtol=1e-6)
        again = vector.download()
        assert Clip(device, norm, vector, None)() == pytest.approx(length(again), rel=1e-6)
        np.testing.assert_array_equal(vector.download(), again)


def test_a_vector_that_is_not_finite_is_left_as_it_is(device: Engine) -> None:
    x = values(1024, 0)
    x[700] = np.inf
    vector = device.upload(x)
    assert Clip(device, 1.0, vector, None)() == np.inf
    np.testing.assert_array_equal(vector.download(), x)


def test_one_rank_clips_its_own_mean() -> None:
    model = Model(connect(), "float32", "root", open_cpu(), BUCKETS, clip_norm=LIMIT)
    report = model.step(5)
    true = true_mean(1, 5)
    assert report.gradient_norm == pytest.approx(np.linalg.norm(true), rel=1e-6)
    factor = LIMIT / (np.linalg.norm(true) + 1e-6)
    np.testing.assert_allclose(
        model.weights.download(), values(LENGTH, 99) - 0.01 * factor * true, atol=1e-6
    )
