"""Vectors in memory that all ranks of a host share: the bits of NumPy's sums and of its SGD."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import BUCKETS, IMAGES, LENGTH, MANY, open_cpu, values

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.exchange import Exchange
from mpitrain.exchange.home import make_home
from mpitrain.exchange.move import Move
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.training.sgd import MomentumSgd

pytestmark = pytest.mark.mpi

RATE, MOMENTUM, DECAY = np.float32(0.03), np.float32(0.9), np.float32(1e-4)
THIN = [Bucket(0, 128, LENGTH, True), Bucket(1, 0, 128, True)]
"""The second is too short for each of two ranks to move a part of it."""


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


class Sgd(MomentumSgd):
    """An Updater without a training."""

    def set_out(self, gradient: Array) -> None: ...

    def alive(self) -> None: ...

    def update(self, move: Move) -> None:
        moved.append(move.stop - move.start)
        super().update(move)


moved: list[int] = []


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("buckets", [BUCKETS, MANY, THIN], ids=["few", "many", "thin"])
@pytest.mark.parametrize("update", ["root", "replicated"])
def test_gradients_that_lie_in_shared_memory_move_all_weights(
    wire: Wire, update: str, buckets: list[Bucket], streaming: bool
) -> None:
    home = make_home(wire, LENGTH, update == "root")
    assert home is not None
    device = open_cpu()
    gradient = device.around(home.gradients[wire.ranks.rank, :LENGTH])
    weights, velocity = (
        device.zeros((LENGTH,)) if vector is None else device.around(vector)
        for vector in (home.weights, home.velocity)
    )
    device.finish()
    wire.agree.barrier()
    w, v = values(LENGTH, 99), np.zeros(LENGTH, np.float32)
    weights.write(w)
    wire.agree.barrier()
    aside = device.beside() if wire.ranks.size > 1 else device
    sgd = Sgd(aside, weights, float(MOMENTUM), float(DECAY), velocity=velocity)
    sgd.rate = float(RATE)
    exchange = Exchange(
        wire, device, weights, gradient, buckets, "window", update, sgd, None, streaming, home
    )
    wire.ranks.delay.seconds = 0.002
    for t in range(3):
        moved.clear()
        gradient.write(values(LENGTH, wire.ranks.rank, t))
        for bucket in buckets:
            exchange.send(bucket, IMAGES)
        exchange.finish()
        total = values(LENGTH, 0, t)
        for rank in range(1, wire.ranks.size):
            total = total + values(LENGTH, rank, t)
        v = MOMENTUM * v - RATE * (total * np.float32(1 / IMAGES) + DECAY * w)
        w = w + v
        found = weights.download()
        wire.agree.barrier()  # nobody changes it before all have read it
        assert wire.agree.gather_facts(bool((found == w).all())) == [True] * wire.ranks.size
        shares = wire.agree.gather_facts(sum(moved))
        copies = wire.ranks.size if update == "replicated" else 1
        assert sum(shares) == copies * LENGTH, shares
    wire.ranks.delay.seconds = 0.0
    exchange.close()


def test_no_home_without_room_or_on_several_hosts(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger ones than there have been: those are given out again."""
    assert make_home(wire, 1 << 50, True) is None
    monkeypatch.setattr(wire.ranks, "one_host", False)
    assert make_home(wire, 1000 * LENGTH, True) is None
