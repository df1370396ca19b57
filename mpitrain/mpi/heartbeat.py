"""Let rank 0 do what may take long, a look at all images, while every rank hears that it goes on: watchdogs would end the job otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpitrain.mpi.wire import Json, Wire

OFTEN = 0.5
"""Seconds between two words of rank 0 about whether its work goes on."""


def patiently(wire: Wire, work: Callable[[Callable[[], None]], Json], alive: Callable[[], None]) -> Json:
    """`wire.from_root` for work(beat) that calls beat() while it goes on; whenever it has, alive() is called on every rank.

    Rank 0 works in a thread.
    """
    there = _Work(work) if wire.rank == 0 else None
    before, done, found = -1, False, None
    while not done:
        beats, done, found = wire.from_root(lambda: there and there.word())
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
        self._thread = threading.Thread(target=self._run, args=(work,), name="work of rank 0", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Callable[[], None]], Json]) -> None:
        try:
            self._found = work(self._beat)
        except BaseException as error:  # raised again where it is asked for
            self._error = error

    def _beat(self) -> None:
        self._beats += 1

    def word(self) -> Json:
        """How often the work has been alive, whether it is done, and what it has found; raises what it has raised."""
        self._thread.join(OFTEN)
        if self._error is not None:
            raise self._error
        done = not self._thread.is_alive()
        return [self._beats, done, self._found if done else None]
