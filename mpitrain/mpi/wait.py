"""Wait for MPI's requests without spinning, and turn MPI's errors into mpitrain's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

from mpi4py import MPI

from mpitrain.job.errors import RunError
from mpitrain.mpi.launch import outlives_ranks
from mpitrain.mpi.naps import Naps
from mpitrain.mpi.ranks import Ranks

NAPS = Naps(yields=1000, shortest=1e-5, longest=1e-3, steady=700)
"""Between two looks at requests. Naps grow after about 0.05 s, and not before: Open MPI advances a
collective only while somebody looks. With naps after 30 looks a step of LeNet without streaming
exchanged for 20 ms on two ranks, and for 2 ms so (MPICH 2.7 and 2)."""
TESTS_A_LOOK = 16 if "Open MPI" in MPI.Get_library_version() else 1
"""Open MPI advances a collective by one piece a test: gradients of AlexNet in float32
on two ranks of a host took 0.48 s with one test a look, 0.2 s with 16."""


UNDER_WAY = 4
"""Pieces that one rank sends at a time where messages are paced."""


class Lost(RunError):
    """A message failed under an MPI that survives the death of ranks; see survive.py."""


FAILURES = (Lost, MPI.Exception)
"""What a death raises: Lost while waiting for messages, MPI.Exception while starting them."""


def failure(ranks: Ranks, error: MPI.Exception, statuses: Sequence[MPI.Status] = ()) -> RunError:
    """The exception to raise for an error of MPI's.

    statuses: of the requests that failed; each may hold the error of its own.
    An MPI that survives deaths reports them by many kinds of errors, some without an error class.
    So every error of such an MPI is taken for a death.
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
    """Look and sleep in turns until all requests are done. Raises RunError if one fails."""
    statuses, looks = [MPI.Status() for _ in requests], 0
    while not _are_done(ranks, requests, statuses):
        looks += 1
        NAPS.after(looks)
    return statuses


def _are_done(ranks: Ranks, requests: list[MPI.Request], statuses: list[MPI.Status]) -> bool:
    """Whether all requests are done. Raises RunError if one fails."""
    try:
        return any(MPI.Request.Testall(requests, statuses) for _ in range(TESTS_A_LOOK))
    except MPI.Exception as error:
        raise failure(ranks, error, statuses) from error


class Messages:
    """The requests of one operation, as a `Pending`."""

    def __init__(
        self,
        ranks: Ranks,
        requests: Sequence[MPI.Request],
        expected: Sequence[tuple[int, int]] = (),
    ) -> None:
        """expected: source and bytes of each message that the first requests receive."""
        self._ranks, self._requests, self._expected = ranks, list(requests), expected
        self._statuses = [MPI.Status() for _ in self._requests]

    def done(self) -> bool:
        """Whether all are done. Raises RunError that names the sender of a wrong size."""
        if not _are_done(self._ranks, self._requests, self._statuses):
            return False
        self._check()
        return True

    def wait(self) -> None:
        """Return when all are done; sleeps while it waits. Raises as `done` does."""
        self._statuses = wait_for(self._ranks, self._requests)
        self._check()

    def _check(self) -> None:
        for (source, wanted), status in zip(self._expected, self._statuses, strict=False):
            came = status.Get_count(MPI.BYTE)
            if came != wanted:
                sender = self._ranks.numbers[source]
                raise RunError(f"message from rank {sender}: expected {wanted} bytes, got {came}")


class Paced(Messages):
    """Messages whose sends start one after the other, a few more at each look."""

    def __init__(
        self,
        ranks: Ranks,
        receives: Sequence[MPI.Request],
        expected: Sequence[tuple[int, int]],
        sends: Iterator[MPI.Request],
    ) -> None:
        """sends: starts a send whenever it is asked for the next one."""
        super().__init__(ranks, receives, expected)
        self._sends = sends
        self._sending: list[MPI.Request] = []

    def done(self) -> bool:
        self._sending = [
            each for each in self._sending if not _are_done(self._ranks, [each], [MPI.Status()])
        ]
        self._sending += islice(self._sends, UNDER_WAY - len(self._sending))
        return not self._sending and super().done()

    def wait(self) -> None:
        looks = 0
        while not self.done():
            looks += 1
            NAPS.after(looks)
