"""Tell every rank that work of rank 0 goes on, so that no watchdog ends the job meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpitrain.mpi.agree import Agree, Json

BEAT_SECONDS = 0.5
"""Between two words of rank 0 about whether its work goes on."""


def with_heartbeat(
    agree: Agree, work: Callable[[Callable[[], None]], Json], alive: Callable[[], None]
) -> Json:
    """`agree.from_root` for work(beat) that calls beat() while it goes on.

    Whenever it has, alive() is called on every rank. Rank 0 works in a thread.
    """
    there = _Work(work) if agree.ranks.rank == 0 else None
    before, done, found = -1, False, None
    while not done:
        beats, done, found = agree.from_root(lambda: there and there.word())
        if beats != before:
            alive()
        before = beats
    return found


class _Work:
    """Work in a thread, and how far it is."""

    def __init__(self, work: Callable[[Callable[[], None]], Json]) -> None:
        self._beats = 0
        self._found: Json = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(work,), name="work of rank 0", daemon=True
        )
        self._thread.start()

    def _run(self, work: Callable[[Callable[[], None]], Json]) -> None:
        try:
            self._found = work(self._beat)
        except BaseException as error:  # raised again where it is asked for
            self._error = error

    def _beat(self) -> None:
        self._beats += 1

    def word(self) -> Json:
        """How often the work has beaten, whether it is done, and its result.

        Raises what the work has raised.
        """
        self._thread.join(BEAT_SECONDS)
        if self._error is not None:
            raise self._error
        done = not self._thread.is_alive()
        return [self._beats, done, self._found if done else None]
