"""The thread of the exchange: flights in order, several at a time, and failures that reach who
waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mpitrain.exchange.stream import BUCKETS_AT_ONCE, Pipeline, Stream, run_all
from mpitrain.mpi.hops import Hops, complete


class Later:
    """Done when somebody says so."""

    def __init__(self) -> None:
        self.came = threading.Event()

    def done(self) -> bool:
        return self.came.is_set()

    def wait(self) -> None:
        assert self.came.wait(10)


class Sky:
    """Flights that write down when each of their hops begins."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int]] = []
        self.gates: dict[tuple[int, int], Later] = {}

    def flight(self, number: int, hops: int = 3) -> Hops[None]:
        for hop in range(hops):
            gate = self.gates[number, hop] = Later()  # before others can see that the hop has begun
            self.said.append((number, hop))
            yield gate
        self.said.append((number, hops))

    def wait_for(self, number: int, hop: int) -> None:
        end = time.monotonic() + 10
        while (number, hop) not in self.said:
            assert time.monotonic() < end, self.said
            time.sleep(0.001)

    def open(self, number: int, hop: int) -> None:
        self.wait_for(number, hop)
        self.gates[number, hop].came.set()


@pytest.fixture
def landed() -> list[float]:
    return []


@pytest.fixture
def stream(landed: list[float]) -> Iterator[Stream]:
    made = Stream(lambda: landed.append(time.monotonic()), lambda: None)
    yield made
    made.close()


def test_what_arrives_first_does_not_change_the_order_on_any_lane(stream: Stream) -> None:
    sky = Sky()
    for number in range(3):
        stream.send(sky.flight(number))
    for number in range(3):
        sky.wait_for(number, 0)
    for number in (2, 1):  # the last messages come first
        sky.open(number, 0)
    time.sleep(0.02)
    assert max(hop for _, hop in sky.said) == 0
    sky.open(0, 0)
    sky.wait_for(2, 1)
    for hop in (1, 2):
        for number in (2, 1, 0):
            sky.open(number, hop)
    stream.finish()
    for hop in range(4):
        assert [number for number, begun in sky.said if begun == hop] == [0, 1, 2]


def test_a_flight_that_has_landed_lets_nobody_overtake_the_one_before_it() -> None:
    sky, pipeline = Sky(), Pipeline()
    for number, hops in ((0, 4), (1, 1), (2, 4)):
        pipeline.add(sky.flight(number, hops))
    pipeline.advance()
    for number, hop in ((0, 0), (1, 0), (2, 0), (2, 1)):
        while (number, hop) not in sky.said:
            assert pipeline.advance(), sky.said
        sky.open(number, hop)
    while pipeline.advance():
        pass
    assert max(hop for number, hop in sky.said if number == 2) == 1
    assert (1, 1) in sky.said
    sky.open(0, 1)
    pipeline.advance()
    assert (2, 2) in sky.said


def test_a_limited_number_is_on_the_way(stream: Stream) -> None:
    sky = Sky()
    for number in range(BUCKETS_AT_ONCE + 2):
        stream.send(sky.flight(number, hops=1))
    sky.wait_for(BUCKETS_AT_ONCE - 1, 0)
    time.sleep(0.02)
    assert (BUCKETS_AT_ONCE, 0) not in sky.said
    for number in range(BUCKETS_AT_ONCE + 2):
        sky.open(number, 0)
    stream.finish()
    assert (BUCKETS_AT_ONCE + 1, 1) in sky.said


def test_finish_waits_for_all_and_steps_follow_each_other(
    stream: Stream, landed: list[float]
) -> None:
    for step in range(3):
        sky = Sky()
        stream.send(sky.flight(0))
        threading.Thread(target=lambda sky=sky: [sky.open(0, hop) for hop in range(3)]).start()
        stream.finish()
        assert sky.said[-1] == (0, 3)
        assert len(landed) == step + 1
    stream.finish()  # a step without buckets


@pytest.mark.parametrize("error", [ValueError("bad luck"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_flight_raises_finish_raises(
    stream: Stream, error: BaseException, landed: list[float]
) -> None:
    def fail() -> Hops[None]:
        gate = Later()
        gate.came.set()
        yield gate
        raise error

    sky = Sky()
    stream.send(fail())
    stream.send(sky.flight(1))
    for _ in range(2):  # and again, whoever asks
        with pytest.raises(type(error)) as caught:
            stream.finish()
        assert caught.value is error
    assert not landed


def test_a_failed_look_is_a_failure(stream: Stream) -> None:
    class Broken(Later):
        def done(self) -> bool:
            raise OSError("link down")

    def flight() -> Hops[None]:
        yield Broken()

    stream.send(flight())
    with pytest.raises(OSError, match="link down"):
        stream.finish()


def test_hops_may_be_taken_one_after_the_other() -> None:
    seen = []

    def flight() -> Hops[int]:
        for hop in range(3):
            gate = Later()
            gate.came.set()
            seen.append(hop)
            yield gate
        return 7

    assert complete(flight()) == 7
    assert seen == [0, 1, 2]


def test_flights_land_without_a_thread_too() -> None:
    sky = Sky()
    early = [(number, hop) for hop in range(3) for number in range(BUCKETS_AT_ONCE)]
    late = [(number, hop) for number in (BUCKETS_AT_ONCE, BUCKETS_AT_ONCE + 1) for hop in range(3)]
    for gates in (early, late):
        threading.Thread(target=lambda gates=gates: [sky.open(*gate) for gate in gates]).start()
    run_all(sky.flight(number) for number in range(BUCKETS_AT_ONCE + 2))
    for hop in range(4):
        assert [number for number, begun in sky.said if begun == hop] == list(
            range(BUCKETS_AT_ONCE + 2)
        )
    run_all([])
