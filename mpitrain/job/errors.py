"""Errors with a sentence for the user, and the exit codes they end in."""

from __future__ import annotations

from typing import TypeVar

DONE = 0
FAILED = 1
WRONG_USE = 2
STOPPED = 75
"""A signal asked for the end, and a checkpoint was written (EX_TEMPFAIL of sysexits). See `mpitrain
requeue`."""
STALLED = 86
"""The watchdog ended a job that made no progress."""
INTERRUPTED = 130
"""Ctrl-C ended it: for a training the second one, since the first is a request to stop. As shells
count: 128 and SIGINT's number."""


class MpitrainError(Exception):
    """An error whose message is one sentence for the user."""

    exit_code = FAILED
    agreed = False
    """Whether every rank of the job raises the same error at the same place, so that all can leave
    in good order."""


class UserError(MpitrainError):
    """The command, the data or the network cannot work. Nothing was computed or overwritten."""

    exit_code = WRONG_USE


class RunError(MpitrainError):
    """Something failed while a correct command was running."""


E = TypeVar("E", bound=MpitrainError)


def agreed(error: E) -> E:
    """Mark an error that every rank raises at the same place, so that no rank needs to abort."""
    error.agreed = True
    return error
