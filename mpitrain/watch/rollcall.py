"""Ask the witnesses of all hosts over the network how their ranks are: a roll call.

So the first cause of a failure is named, and not what followed from it. A witness (witness.py)
opens a port and answers each connection with a line of JSON: what its rank is doing, and how many
seconds ago the rank ended. If a witness does not answer, its host is gone or its link is cut.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Place: TypeAlias = tuple[str, str, int]
"""Name of a rank, address of its host, port of its witness."""
Answer: TypeAlias = dict[str, Any]
"""line: which rank it is and what it is doing, in words; over: seconds since it ended or announced
its end, None if it did not; stopped: whether it is stopped by SIGSTOP."""
ANSWER_SECONDS = 1.0
"""How long to wait for answers."""
ASKED_AT_ONCE = 250
"""How many witnesses are asked at the same time. A process may often have 1024 files open, of which
a rank needs some."""


class AnswerPort:
    """A port at which this process answers questions about its rank."""

    def __init__(self, answer: Callable[[], Answer]) -> None:
        self._answer = answer
        self.socket = socket.create_server(("", 0), backlog=1024)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def answer(self) -> None:
        """Answer one connection."""
        with contextlib.suppress(OSError):
            connection = self.socket.accept()[0]
            with connection:
                connection.sendall(json.dumps(self._answer()).encode())


def ask(places: Sequence[Place], port_here: AnswerPort | None = None) -> list[Answer | None]:
    """The answer of each witness, None if none came.

    port_here: is served meanwhile, because the witnesses that are asked may be asking this one.
    """
    found: list[Answer | None] = []
    for start in range(0, len(places), ASKED_AT_ONCE):
        found += _ask(places[start : start + ASKED_AT_ONCE], port_here)
    return found


def _ask(places: Sequence[Place], port_here: AnswerPort | None) -> list[Answer | None]:
    """Ask all of them at the same time."""
    poll = select.poll()
    asked: dict[int, tuple[int, socket.socket]] = {}
    received = [b""] * len(places)
    for number, (_, host, port) in enumerate(places):
        connection = socket.socket()
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.connect_ex((host, port))
        asked[connection.fileno()] = number, connection
        poll.register(connection, select.POLLIN)
    if port_here:
        poll.register(port_here.socket, select.POLLIN)
    limit = time.monotonic() + ANSWER_SECONDS
    while asked and (seconds_left := limit - time.monotonic()) > 0:
        for file, _ in poll.poll(1000 * seconds_left):
            if file not in asked:
                if port_here:
                    port_here.answer()
                continue
            number, connection = asked[file]
            try:
                content = connection.recv(4096)
            except OSError:
                content, received[number] = b"", b""
            received[number] += content
            if not content:
                poll.unregister(connection)
                connection.close()
                del asked[file]
    for _, connection in asked.values():
        connection.close()
    return [_parsed(words) for words in received]


def _parsed(words: bytes) -> Answer | None:
    try:
        found: Any = json.loads(words)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"line", "over", "stopped"}:
        return None
    return found if found["over"] is None or isinstance(found["over"], float) else None


def address() -> str | None:
    """The address that this host's name has; None if it has none."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return None


def absent(places: Sequence[Place], answers: Sequence[Answer | None]) -> str:
    """Which ranks do not answer or are stopped, in words; empty if there are none."""
    silent = [name for (name, _, _), answer in zip(places, answers, strict=True) if answer is None]
    stopped = [answer["line"] for answer in answers if answer and answer["stopped"]]
    words = [f"no answer from {', '.join(silent)}: gone, or its link is cut"] if silent else []
    words += [f"{line}: stopped (SIGSTOP)" for line in stopped]
    return "; ".join(words)
