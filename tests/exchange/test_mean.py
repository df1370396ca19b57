"""The coded mean against its own arithmetic in NumPy, and what happens to damaged messages."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray
from ranks import BLOCK, IMAGES, coded_once, open_cpu, values

from mpitrain.exchange.by_message import ByMessage
from mpitrain.exchange.carrier import Place
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_numpy import PlainDynamic8
from mpitrain.exchange.codec_protocol import Plain
from mpitrain.exchange.mean import Mean, own_values
from mpitrain.exchange.message import HEADER
from mpitrain.job.errors import RunError
from mpitrain.mpi.connect import connect
from mpitrain.mpi.hops import Pending, complete
from mpitrain.mpi.transfer import Transfer
from mpitrain.mpi.wire import Wire, make

SIZES = [1, 700, 2 * BLOCK, 5 * BLOCK, 41 * BLOCK]


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def expected_mean(size: int, ranks: int) -> NDArray[np.float32]:
    """Coded parts added in rank order in float32, times 1 / images, coded again where there are
    more than two ranks."""
    total = coded_once(values(size, 0))
    for rank in range(1, ranks):
        total = total + coded_once(values(size, rank))
    mean = total * np.float32(1 / IMAGES)
    return mean if ranks == 2 else coded_once(mean)


def test_two_ranks_own_nothing() -> None:
    assert own_values(5000, 1, 2) == (0, 0)
    assert own_values(700, 2, 3) == (512, 700)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("to_all", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_mean_is_what_its_arithmetic_says_bit_for_bit(
    wire: Wire, size: int, to_all: bool
) -> None:
    expected = expected_mean(size, wire.ranks.size)
    device = open_cpu()
    on_device, on_host = (
        device.upload(values(size, wire.ranks.rank)),
        Plain(values(size, wire.ranks.rank)),
    )
    wire.ranks.delay.seconds = 0.002
    codec, plain = make_codec("dynamic8", device), PlainDynamic8()
    by_device = Mean(ByMessage(wire.transfer, codec), codec, to_all)
    by_host = Mean(ByMessage(wire.transfer, plain), plain, to_all)
    complete(by_device.hops(on_device, IMAGES, Place(0, 0)))
    complete(by_host.hops(on_host, IMAGES, Place(0, 1)))
    wire.ranks.delay.seconds = 0.0
    if to_all or wire.ranks.rank == 0:
        np.testing.assert_array_equal(on_device.download(), expected)
        np.testing.assert_array_equal(on_host.values, expected)


class Damage:
    """A wire on which the last rank's messages lose a bit, in the header or behind it."""

    def __init__(self, wire: Transfer, place: int) -> None:
        self.rank, self.size, self.numbers = wire.rank, wire.size, wire.numbers
        self._wire, self._place = wire, place
        self.start_broadcast, self.start_star = wire.start_broadcast, wire.start_star

    def start_all_to_all(self, outgoing: list, incoming: list, lane: int) -> Pending:
        if self.rank == self.size - 1:
            for message in outgoing:
                if message is not None:
                    message[self._place] ^= 1
        return self._wire.start_all_to_all(outgoing, incoming, lane)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    ("place", "words"), [(0, "b'mpiT' version 1, got b'lpiT'"), (HEADER + 5, "checksum")]
)
def test_a_damaged_message_names_its_sender(place: int, words: str) -> None:
    wire = make(
        MPI.COMM_WORLD
    )  # the last rank's mean is never fetched, and must not be there in the next test
    last = wire.ranks.size - 1
    x = Plain(values(20 * BLOCK, wire.ranks.rank))
    codec, damaged = PlainDynamic8(), Damage(wire.transfer, place)
    mean = Mean(ByMessage(damaged, codec), codec, to_all=False)  # type: ignore[arg-type]
    caught: RunError | None = None
    try:
        complete(mean.hops(x, IMAGES, Place(4, 2)))
    except RunError as error:
        caught = error
    assert (caught is not None) == (wire.ranks.rank != last)
    if caught is not None:
        assert f"from rank {last}" in str(caught)
        assert words in str(caught)
    wire.agree.barrier()
