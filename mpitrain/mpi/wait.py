"""Wait for MPI's requests without spinning, and turn MPI's errors into ours."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from mpi4py import MPI

from mpitrain.job.errors import RunError
from mpitrain.mpi.launch import outlives_ranks
from mpitrain.mpi.ranks import Ranks

LOOKS_WITHOUT_NAP = 30
"""Looks at a request that only give the core away: a short message comes sooner than the shortest
nap ends (0.06 ms)."""
NAP_MIN_SECONDS, NAP_MAX_SECONDS, NAP_GROWS_AFTER_SECONDS = 1e-5, 1e-3, 0.05
"""The nap between two looks at a request; it grows after a while. A waiting MPI call spins, which
takes a core from whoever computes. But Open MPI moves a collective only while somebody looks, one
piece a look: with naps of 0.1 to 1 ms from the start a step of LeNet took ten times as long."""


class Lost(RunError):
    """A message failed under an MPI that outlives ranks: `among_the_living` may go on without
    one."""


FAILURES = (Lost, MPI.Exception)
"""What is raised where MPI tells of a death: by waiting for messages, and by starting some."""


def failure(ranks: Ranks, error: MPI.Exception, statuses: Sequence[MPI.Status] = ()) -> RunError:
    """What to raise for an error of MPI's.

    statuses: of the requests that it is about, where MPI may have left what it was.
    An MPI that outlives ranks reports a death with all sorts of errors, some without a number.
    """
    kind = Lost if outlives_ranks(os.environ) else RunError
    return kind(f"rank {ranks.numbers[ranks.rank]}: a message failed: {_words(error, statuses)}")


def _words(error: MPI.Exception, statuses: Sequence[MPI.Status]) -> str:
    """What went wrong: of several requests MPI says only "see the MPI_ERROR field"."""
    if error.Get_error_class() == MPI.ERR_IN_STATUS:
        codes = {status.Get_error() for status in statuses} - {MPI.SUCCESS, MPI.ERR_PENDING}
        found = sorted({MPI.Get_error_string(code).partition("\n")[0] for code in codes})
        if found:
            return "; ".join(found)
    return str(error).partition("\n")[0]


def wait_for(ranks: Ranks, requests: list[MPI.Request]) -> list[MPI.Status]:
    """Look, sleep, look again, until all requests are done. Raises RunError if one fails."""
    statuses = [MPI.Status() for _ in requests]
    looks, nap, grows_at = 0, NAP_MIN_SECONDS, time.monotonic() + NAP_GROWS_AFTER_SECONDS
    try:
        while not MPI.Request.Testall(requests, statuses):
            looks += 1
            time.sleep(nap if looks > LOOKS_WITHOUT_NAP else 0)
            if time.monotonic() > grows_at:
                nap = min(2 * nap, NAP_MAX_SECONDS)
    except MPI.Exception as error:
        raise failure(ranks, error, statuses) from error
    return statuses


class Messages:
    """The requests of one operation, as a `Pending`."""

    def __init__(
        self,
        ranks: Ranks,
        requests: Sequence[MPI.Request],
        expected: Sequence[tuple[int, int]] = (),
    ) -> None:
        """expected: source and bytes of the messages that the first requests receive."""
        self._ranks, self._requests, self._expected = ranks, list(requests), expected
        self._statuses = [MPI.Status() for _ in self._requests]

    def done(self) -> bool:
        """Whether all are done. Raises RunError that names the sender of a message of wrong
        size."""
        try:
            if not MPI.Request.Testall(self._requests, self._statuses):
                return False
        except MPI.Exception as error:
            raise failure(self._ranks, error, self._statuses) from error
        self._check()
        return True

    def wait(self) -> None:
        """Return when all are done; sleeps between two looks. Raises as `done` does."""
        self._statuses = wait_for(self._ranks, self._requests)
        self._check()

    def _check(self) -> None:
        for (source, wanted), status in zip(self._expected, self._statuses, strict=False):
            came = status.Get_count(MPI.BYTE)
            if came != wanted:
                sender = self._ranks.numbers[source]
                raise RunError(f"message from rank {sender}: expected {wanted} bytes, got {came}")
