"""A roll call over the network, among the witnesses of several hosts: so that the first cause is
named, and not what followed from it.

A witness (witness.py) opens a port and answers whoever asks with a line of JSON: what its rank
does, and for how many seconds it has been over with it. Whoever does not answer is gone with all
that was beside it, or its link is cut.
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
"""A rank in words, the address of its host, the port of its witness."""
Answer: TypeAlias = dict[str, Any]
"""line: what the rank does, in words; over: seconds since its end or its last words, or None;
stopped: by SIGSTOP."""
PATIENCE = 1.0
"""Seconds to wait for answers."""
AT_ONCE = 250
"""Who are asked at once; a process may often have 1024 files open, of which a rank needs some."""


class Ears:
    """A port at which one process answers."""

    def __init__(self, answer: Callable[[], Answer]) -> None:
        self._answer = answer
        self.socket = socket.create_server(("", 0), backlog=1024)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def answer(self) -> None:
        """Answer one who asks."""
        with contextlib.suppress(OSError):
            asker = self.socket.accept()[0]
            with asker:
                asker.sendall(json.dumps(self._answer()).encode())


def ask(places: Sequence[Place], ears: Ears | None = None) -> list[Answer | None]:
    """Everyone's answer, None where none came. ears: answers those who ask meanwhile, perhaps
    us."""
    found: list[Answer | None] = []
    for start in range(0, len(places), AT_ONCE):
        found += _ask(places[start : start + AT_ONCE], ears)
    return found


def _ask(places: Sequence[Place], ears: Ears | None) -> list[Answer | None]:
    """All at once."""
    poll = select.poll()
    asked: dict[int, tuple[int, socket.socket]] = {}
    said = [b""] * len(places)
    for number, (_, host, port) in enumerate(places):
        mouth = socket.socket()
        mouth.setblocking(False)
        with contextlib.suppress(OSError):
            mouth.connect_ex((host, port))
        asked[mouth.fileno()] = number, mouth
        poll.register(mouth, select.POLLIN)
    if ears:
        poll.register(ears.socket, select.POLLIN)
    limit = time.monotonic() + PATIENCE
    while asked and (left := limit - time.monotonic()) > 0:
        for file, _ in poll.poll(1000 * left):
            if file not in asked:
                if ears:
                    ears.answer()
                continue
            number, mouth = asked[file]
            try:
                some = mouth.recv(4096)
            except OSError:
                some, said[number] = b"", b""
            said[number] += some
            if not some:
                poll.unregister(mouth)
                mouth.close()
                del asked[file]
    for _, mouth in asked.values():
        mouth.close()
    return [_parsed(words) for words in said]


def _parsed(words: bytes) -> Answer | None:
    try:
        found: Any = json.loads(words)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"line", "over", "stopped"}:
        return None
    return found if found["over"] is None or isinstance(found["over"], float) else None


def address() -> str | None:
    """This host's, as its name says; None if it has none that others could use."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return None


def absent(places: Sequence[Place], answers: Sequence[Answer | None]) -> str:
    """Who does not answer, or has been stopped, in words; nothing if all are well."""
    silent = [name for (name, _, _), answer in zip(places, answers, strict=True) if answer is None]
    stopped = [answer["line"] for answer in answers if answer and answer["stopped"]]
    words = [f"no answer from {', '.join(silent)}: gone, or its link is cut"] if silent else []
    words += [f"{line}: stopped (SIGSTOP)" for line in stopped]
    return "; ".join(words)
