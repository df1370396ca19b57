"""Errors with a sentence for the user, and the exit codes they end in."""

from __future__ import annotations

from typing import TypeVar

DONE = 0
FAILED = 1
WRONG_USE = 2
STOPPED = 75
"""A signal asked for the end and a checkpoint is written; SLURM requeues on it (sysexits'
EX_TEMPFAIL)."""
STALLED = 86
"""The watchdog ended a job in which nothing moved."""
INTERRUPTED = 130
"""Ctrl-C ended it: for a training the second one, since the first is a request to stop. As shells
count: 128 and SIGINT's number."""


class MpitrainError(Exception):
    """Something to tell the user in one sentence."""

    exit_code = FAILED
    agreed = False
    """Whether every rank of the job raises the same error at the same place, so that all can leave
    in good order."""


class UserError(MpitrainError):
    """The command, the data or the network given cannot work: nothing has been computed or
    overwritten."""

    exit_code = WRONG_USE


class RunError(MpitrainError):
    """The run was sound and something failed on the way."""


E = TypeVar("E", bound=MpitrainError)


def agreed(error: E) -> E:
    """Mark an error that every rank raises at the same place: nobody needs to be told by an
    abort."""
    error.agreed = True
    return error
