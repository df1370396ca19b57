"""Tell every rank that rank 0's work makes progress, so that no watchdog ends the job."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpitrain.mpi.agree import Agree, Json

BEAT_SECONDS = 0.5
"""Between two reports of rank 0 about its work."""


def with_heartbeat(
    agree: Agree, work: Callable[[Callable[[], None]], Json], alive: Callable[[], None]
) -> Json:
    """As `agree.from_root`, for long work(beat), which calls beat() whenever it makes progress.

    Rank 0 runs it in a thread. alive() is called on every rank if there were beats meanwhile.
    """
    running = _Work(work) if agree.ranks.rank == 0 else None
    before, done, result = -1, False, None
    while not done:
        beats, done, result = agree.from_root(lambda: running and running.report())
        if beats != before:
            alive()
        before = beats
    return result


class _Work:
    """Work in a thread, with its number of beats."""

    def __init__(self, work: Callable[[Callable[[], None]], Json]) -> None:
        self._beats = 0
        self._result: Json = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(work,), name="work of rank 0", daemon=True
        )
        self._thread.start()

    def _run(self, work: Callable[[Callable[[], None]], Json]) -> None:
        try:
            self._result = work(self._beat)
        except BaseException as error:  # raised again where it is asked for
            self._error = error

    def _beat(self) -> None:
        self._beats += 1

    def report(self) -> Json:
        """The number of beats, whether the work is done, and its result.

        Waits for the work, but at most BEAT_SECONDS. Raises what the work raised.
        """
        self._thread.join(BEAT_SECONDS)
        if self._error is not None:
            raise self._error
        done = not self._thread.is_alive()
        return [self._beats, done, self._result if done else None]
