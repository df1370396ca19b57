"""Arrays between ranks: what one sends the others get."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.job.errors import RunError
from mpitrain.mpi import pieces
from mpitrain.mpi.connect import connect
from mpitrain.mpi.transfer import PIECE_BYTES, PIECES_MAX
from mpitrain.mpi.wire import Wire

mpi = pytest.mark.mpi


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


@mpi
@pytest.mark.parametrize("size", [0, 1, 7, 5000])
def test_collectives_of_float32(wire: Wire, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ELEMENTS_PER_CALL", 1000)  # several pieces
    parts = [
        np.random.default_rng(rank).standard_normal(size).astype(np.float32)
        for rank in range(wire.ranks.size)
    ]
    true = np.sum(parts, axis=0, dtype=np.float64)
    everywhere, at_root, sent = (
        parts[wire.ranks.rank].copy(),
        parts[wire.ranks.rank].copy(),
        parts[wire.ranks.rank].copy(),
    )
    wire.transfer.allreduce(everywhere)
    np.testing.assert_allclose(everywhere, true, atol=1e-5)
    assert len(set(wire.agree.gather_facts(everywhere.tobytes().hex()))) == 1
    wire.transfer.start_reduce(at_root).wait()
    np.testing.assert_allclose(
        at_root, true if wire.ranks.rank == 0 else parts[wire.ranks.rank], atol=1e-5
    )
    wire.transfer.broadcast(sent)
    np.testing.assert_array_equal(sent, parts[0])


@mpi
def test_bytes_reach_whom_they_are_for(wire: Wire) -> None:
    ranks = range(wire.ranks.size)
    for _ in range(20):
        outgoing = [
            np.full(100 + 10 * to + wire.ranks.rank, wire.ranks.rank, np.uint8) if to != 1 else None
            for to in ranks
        ]
        incoming = [np.empty(100 + 10 * wire.ranks.rank + source, np.uint8) for source in ranks]
        before = wire.bytes_sent
        wire.transfer.start_all_to_all(
            outgoing, incoming if wire.ranks.rank != 1 else [None] * wire.ranks.size
        ).wait()
        others = [
            message
            for to, message in enumerate(outgoing)
            if to != wire.ranks.rank and message is not None
        ]
        assert wire.bytes_sent - before == sum(message.size for message in others)
        if wire.ranks.rank != 1:
            for source in ranks:
                assert source == wire.ranks.rank or (incoming[source] == source).all()


@mpi(min_size=2)
def test_paced_messages_arrive_whatever_pieces_they_are_cut_into(wire: Wire) -> None:
    """Of lengths about those where one more piece begins, and where none are cut any more."""
    rank, size = wire.ranks.rank, wire.ranks.size
    lengths = (
        0,
        1,
        PIECE_BYTES,
        PIECE_BYTES + 1,
        PIECE_BYTES * PIECES_MAX,
        PIECE_BYTES * PIECES_MAX + 1,
    )

    def message(sender: int, receiver: int, turn: int) -> np.ndarray:
        length = lengths[(sender + 2 * receiver + turn) % len(lengths)]
        return np.random.default_rng([sender, receiver, turn]).integers(0, 256, length, np.uint8)

    wire.ranks.delay.seconds, right, before, sent = 0.001, True, wire.bytes_sent, 0
    for turn in range(len(lengths)):
        outgoing = [message(rank, to, turn) if to != rank else None for to in range(size)]
        incoming = [np.empty_like(message(source, rank, turn)) for source in range(size)]
        wire.transfer.start_all_to_all(outgoing, incoming, paced=True).wait()
        sent += sum(each.size for each in outgoing if each is not None)
        right &= all(
            np.array_equal(came, message(source, rank, turn))
            for source, came in enumerate(incoming)
            if source != rank
        )
    wire.ranks.delay.seconds = 0.0
    assert wire.agree.gather_facts([right, wire.bytes_sent - before == sent]) == [[True] * 2] * size


@mpi(min_size=2)
@pytest.mark.parametrize("paced", [False, True])
def test_a_short_message_names_its_sender(wire: Wire, paced: bool) -> None:
    nothing = [None] * wire.ranks.size
    if wire.ranks.rank == 0:
        with pytest.raises(RunError, match="message from rank 1: expected 8 bytes, got 5"):
            wire.transfer.start_all_to_all(
                nothing, [None, np.empty(8, np.uint8), *nothing[2:]], paced=paced
            ).wait()
    else:
        wire.transfer.start_all_to_all(
            [np.zeros(5, np.uint8) if wire.ranks.rank == 1 else None, *nothing[1:]],
            nothing,
            paced=paced,
        ).wait()
    wire.agree.barrier()
