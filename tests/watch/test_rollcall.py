"""A roll call finds who answers, who is stopped, and who is gone, within its patience."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mpitrain.watch import rollcall as roll
from mpitrain.watch.rollcall import Answer, AnswerPort, Place, absent, ask


@pytest.fixture
def well() -> Iterator[Place]:
    """One who answers."""
    ears, ended = AnswerPort(lambda: answer("forward at step 2")), threading.Event()
    ears.socket.setblocking(True)
    ears.socket.settimeout(0.01)

    def serve() -> None:
        while not ended.is_set():
            ears.answer()

    thread = threading.Thread(target=serve)
    thread.start()
    yield "rank 1 of 3 on b", "127.0.0.1", ears.port
    ended.set()
    thread.join()
    ears.socket.close()


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A port at which nobody says anything, as behind a link that is cut."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def answer(line: str, over: float | None = None, stopped: bool = False) -> Answer:
    return {"line": line, "over": over, "stopped": stopped}


def test_who_answers_is_told_from_who_is_gone_and_who_is_silent(
    well: Place, mute: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    silent: Place = ("rank 2 of 3 on c", "127.0.0.1", mute.getsockname()[1])
    begin = time.monotonic()
    found = ask([("rank 0 of 3 on a", "127.0.0.1", port), well, silent])
    assert time.monotonic() - begin < roll.ANSWER_SECONDS + 1
    assert found == [None, answer("forward at step 2"), None]


def test_two_who_ask_each_other_at_once_both_get_their_answers() -> None:
    both = [AnswerPort(lambda name=name: answer(name)) for name in "ab"]  # type: ignore[misc]
    found: dict[int, list[Answer | None]] = {}

    def call(me: int) -> None:
        found[me] = ask([("the other", "127.0.0.1", both[1 - me].port)], both[me])
        until = time.monotonic() + 0.5
        while time.monotonic() < until:  # as a witness does after it has asked
            both[me].answer()
            time.sleep(0.001)

    threads = [threading.Thread(target=call, args=[me]) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ears in both:
        ears.socket.close()
    assert found == {0: [answer("b")], 1: [answer("a")]}


def test_more_than_may_be_asked_at_once_are_asked_in_turn(well: Place) -> None:
    assert ask([well] * (roll.ASKED_AT_ONCE + 2)) == [answer("forward at step 2")] * (
        roll.ASKED_AT_ONCE + 2
    )


@pytest.mark.parametrize(
    "words",
    [b"", b"no JSON", b"[]", b"7", b'{"line": "cut', b'{"line": "", "over": "x", "stopped": 0}'],
)
def test_whatever_else_listens_there_is_no_witness(mute: socket.socket, words: bytes) -> None:
    def serve() -> None:
        with mute.accept()[0] as asker:
            asker.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    assert ask([("rank 1", "127.0.0.1", mute.getsockname()[1])]) == [None]
    thread.join()


def test_it_is_said_who_is_gone_and_who_is_stopped() -> None:
    places = [
        (f"rank {rank} of 4 on {host}", "", 0) for rank, host in ((1, "b"), (2, "b"), (3, "c"))
    ]
    well, stopped = answer("x"), answer("rank 3 of 4 on c, forward at step 2", stopped=True)
    assert absent(places, [well, well, well]) == ""
    words = absent(places, [None, None, stopped])
    assert words == (
        "no answer from rank 1 of 4 on b, rank 2 of 4 on b: gone, or its link is cut; "
        "rank 3 of 4 on c, forward at step 2: stopped (SIGSTOP)"
    )
