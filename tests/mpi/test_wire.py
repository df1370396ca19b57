"""Bytes between ranks: what one sends the others get, and a failure on one is known to all."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mpitrain.job.errors import RunError, UserError
from mpitrain.mpi import wire as module
from mpitrain.mpi.wire import Wire, connect

mpi = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@mpi
def test_ranks_and_hosts_are_counted(wire: Wire) -> None:
    assert wire.gather_facts([wire.rank, wire.size]) == [[rank, wire.size] for rank in range(wire.size)]
    assert 0 <= wire.local_rank < wire.local_size <= wire.size
    assert wire.one_host == (wire.local_size == wire.size)


@mpi
def test_everyone_hears_what_rank_0_makes(wire: Wire) -> None:
    assert wire.from_root(lambda: {"rank": wire.rank, "pair": (1, "ü")}) == {"rank": 0, "pair": [1, "ü"]}


@mpi
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (UserError("no such file"), UserError, "^no such file$"),
        (RunError("disk full"), RunError, "^disk full$"),
        (KeyError("x"), RunError, "^rank 0: KeyError: 'x'$"),
    ],
)
def test_everyone_raises_what_rank_0_raises(wire: Wire, error: Exception, kind: type, words: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind, match=words):
        wire.from_root(fail)
    with pytest.raises(RunError, match="TypeError"):
        wire.from_root(lambda: object())
    assert wire.from_root(lambda: 1) == 1


@mpi
def test_facts_of_any_length_come_in_rank_order(wire: Wire) -> None:
    assert wire.gather_facts("x" * (wire.rank * 1000)) == ["x" * (rank * 1000) for rank in range(wire.size)]


@mpi
def test_sums_of_float64_are_the_same_everywhere(wire: Wire) -> None:
    parts = [np.random.default_rng(rank).standard_normal(5) for rank in range(wire.size)]
    expected = np.zeros(5)
    for part in parts:
        expected = expected + part
    np.testing.assert_array_equal(wire.sum(parts[wire.rank]), expected)


@mpi
@pytest.mark.parametrize("size", [0, 1, 7, 5000])
def test_collectives_of_float32(wire: Wire, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1000)  # several pieces
    parts = [
        np.random.default_rng(rank).standard_normal(size).astype(np.float32) for rank in range(wire.size)
    ]
    true = np.sum(parts, axis=0, dtype=np.float64)
    everywhere, at_root, sent = parts[wire.rank].copy(), parts[wire.rank].copy(), parts[wire.rank].copy()
    wire.allreduce(everywhere)
    np.testing.assert_allclose(everywhere, true, atol=1e-5)
    assert len(set(wire.gather_facts(everywhere.tobytes().hex()))) == 1
    wire.reduce_to_root(at_root)
    np.testing.assert_allclose(at_root, true if wire.rank == 0 else parts[wire.rank], atol=1e-5)
    wire.broadcast(sent)
    np.testing.assert_array_equal(sent, parts[0])


@mpi
def test_bytes_reach_whom_they_are_for(wire: Wire) -> None:
    ranks = range(wire.size)
    for _ in range(20):
        outgoing = [
            np.full(100 + 10 * to + wire.rank, wire.rank, np.uint8) if to != 1 else None for to in ranks
        ]
        incoming = [np.empty(100 + 10 * wire.rank + source, np.uint8) for source in ranks]
        before = wire.bytes_sent
        wire.all_to_all(outgoing, incoming if wire.rank != 1 else [None] * wire.size)
        others = [message for to, message in enumerate(outgoing) if to != wire.rank and message is not None]
        assert wire.bytes_sent - before == sum(message.size for message in others)
        if wire.rank != 1:
            for source in ranks:
                assert source == wire.rank or (incoming[source] == source).all()


@mpi
def test_rank_0_gathers_bytes(wire: Wire) -> None:
    message = np.full(wire.rank + 1, wire.rank, np.uint8)
    incoming = [np.empty(rank + 1, np.uint8) for rank in range(wire.size)]
    wire.gather_to_root(message, incoming)
    if wire.rank == 0:
        assert [part.tolist() for part in incoming[1:]] == [[r] * (r + 1) for r in range(1, wire.size)]


@mpi(min_size=2)
def test_a_short_message_names_its_sender(wire: Wire) -> None:
    nothing = [None] * wire.size
    if wire.rank == 0:
        with pytest.raises(RunError, match="message from rank 1: expected 8 bytes, got 5"):
            wire.all_to_all(nothing, [None, np.empty(8, np.uint8), *nothing[2:]])
    else:
        wire.all_to_all([np.zeros(5, np.uint8) if wire.rank == 1 else None, *nothing[1:]], nothing)
    wire.barrier()


@mpi
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_parts_of_batches_arrive_ahead_of_their_use(wire: Wire, dtype: type) -> None:
    shape, count = (3, 4, 5), 5 * wire.size + 2
    parts = [slice(rank * count // wire.size, (rank + 1) * count // wire.size) for rank in range(wire.size)]
    mine = parts[wire.rank]

    def batch(t: int) -> tuple[np.ndarray, np.ndarray]:
        images = np.random.default_rng(t).integers(0, 255, (count, *shape)).astype(dtype)
        return images, np.arange(count, dtype=np.int32) + t

    before = wire.bytes_sent
    started = [
        wire.scatter_parts(*(batch(t) if wire.rank == 0 else (None, None)), parts, shape, dtype)
        for t in range(4)
    ]
    sent = wire.bytes_sent - before
    for t, part in enumerate(started):
        images, labels = part.wait()
        np.testing.assert_array_equal(images, batch(t)[0][mine])
        np.testing.assert_array_equal(labels, batch(t)[1][mine])
    others = count - (mine.stop - mine.start)
    assert sent == (4 * others * (60 * np.dtype(dtype).itemsize + 4) if wire.rank == 0 else 0)


@mpi
def test_the_library_has_a_name_and_a_path(wire: Wire) -> None:
    assert "/" in wire.library
    assert "\n" not in wire.library


@mpi
def test_one_rank_of_each_host_goes_first(wire: Wire) -> None:
    """What leaders have finished before the others begin is seen by all, and everyone gets a thing of its own."""
    begun: list[float] = []

    def make() -> tuple[int, float]:
        begun.append(time.monotonic())
        time.sleep(0.05)
        return wire.rank, time.monotonic()

    rank, ended = wire.leaders_first(make)
    assert rank == wire.rank and len(begun) == 1
    seen = wire.gather_facts([wire.host, wire.local_rank, begun[0], ended])
    for host, local_rank, begin, _ in seen:
        leader_end = next(end for other, local, _, end in seen if (other, local) == (host, 0))
        assert local_rank == 0 or begin >= leader_end


@mpi
def test_a_leader_that_fails_stops_everyone(wire: Wire) -> None:
    def fail() -> None:
        raise RunError("does not compile")

    with pytest.raises(RunError, match="does not compile"):
        wire.leaders_first(fail)


@mpi
def test_ranks_know_whether_they_have_the_same_numbers(wire: Wire) -> None:
    assert wire.alike(np.array([1 << 40, -3, 0]))
    assert wire.alike(np.array([7, wire.rank])) == (wire.size == 1)
    assert wire.alike(np.array([-1 if wire.rank == wire.size - 1 else 0])) == (wire.size == 1)
