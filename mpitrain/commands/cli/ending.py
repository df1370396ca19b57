"""How a command ends, good or bad, and with it the whole job: with one line, and the exit code of
CLI.md."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import time
import traceback
from types import ModuleType
from typing import NoReturn, TextIO

import click

from mpitrain.commands.cli.meeting import compare, launched, rank
from mpitrain.job.errors import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USE,
    MpitrainError,
    RunError,
)
from mpitrain.job.plain import paragraph
from mpitrain.job.stdout import discard, refused_by
from mpitrain.watch import witness
from mpitrain.watch.signals import ignore
from mpitrain.watch.witness import LINGER, last_words


def refuse(error: click.ClickException) -> NoReturn:
    """End on words that are none of a command's. Other ranks may have been asked for what can be
    done, and wait."""
    said = error.format_message()
    if launched() and _join():
        try:
            compare({"command": "a wrong one"}, said)
        except MpitrainError as all_together:
            if str(all_together) != said:
                end(all_together)
    if rank() == 0:
        error.show()
    leave(WRONG_USE)


def of_stdout(error: BaseException, before: TextIO) -> BaseException:
    """A sentence about stdout for an error that is of it; other errors as they are.

    before: the stdout with which the command began; click takes another, and exits, where it finds
    the pipe closed.
    """
    if isinstance(error, SystemExit) and sys.stdout is not before:
        error = OSError(errno.EPIPE, os.strerror(errno.EPIPE))
    if not (isinstance(error, OSError) and refused_by(error)):
        return error
    discard(before)
    return RunError(f"stdout cannot be written: {error.strerror}")


def end(error: BaseException | None) -> None:
    """Say what happened and end the job: in good order if all ranks agree about the error, by
    MPI_Abort if only this one knows."""
    code = error.exit_code if isinstance(error, MpitrainError) else FAILED
    words = (
        str(error)
        if isinstance(error, MpitrainError)
        else f"{type(error).__name__}: {error}".rstrip(": ")
    )
    words = paragraph(words)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        code, words = INTERRUPTED, "interrupted"
    expected = isinstance(error, (MpitrainError, KeyboardInterrupt, click.Abort))
    wire = sys.modules.get("mpitrain.mpi.connect")
    job = wire.connected() if wire else None
    # Before the ranks have met, what is wrong with the command is known to all of them.
    alone = job is None or job.ranks.size == 1
    agreed = expected and (alone or (isinstance(error, MpitrainError) and error.agreed))
    if not agreed and wire is None:
        wire = _join()
    if agreed or wire is None:
        # Where rank 0 is dead, the first of the others has its number.
        if (job.ranks.rank if job else rank()) == 0:
            _trace(error, expected)
            print(f"mpitrain: {words}", file=sys.stderr, flush=True)
        leave(code)
    if isinstance(error, MpitrainError) and _of_mpi(error) and witness.other_speaks():
        wire.abort(code)  # a rank has died, and is named already
        leave(code, aborted=True)
    _trace(error, expected)
    last_words(f"{job.ranks.name}{_phase()}: {words}" if job else f"rank {rank()}: {words}")
    wire.abort(code)
    leave(code, aborted=True)  # MPI_Abort may come back before the launcher's signal arrives


def _of_mpi(error: BaseException) -> bool:
    """Whether an error is of a message that failed, as messages do when a rank dies."""
    return type(error.__cause__).__module__.partition(".")[0] == "mpi4py"


def _join() -> ModuleType | None:
    """Join the MPI job, if there is one, in order to abort it: its other ranks wait for this
    one."""
    if not launched():
        return None
    try:
        return importlib.import_module("mpitrain.mpi.connect")
    except ImportError:
        return None


def _trace(error: BaseException | None, expected: bool) -> None:
    if error is not None and ("--verbose" in sys.argv or not expected):
        traceback.print_exception(error)


def _phase() -> str:
    """What this rank was doing, if it was training."""
    train = sys.modules.get("mpitrain.training.train")
    watch = train.watching() if train else None
    return f", {watch.phase} at step {watch.step}" if watch else ""


def leave(code: int, aborted: bool = False) -> NoReturn:
    """Exit like all other ranks. Launchers kill the rest when one exits with an error, so what rank
    0 has said arrives first."""
    if code != DONE and not aborted:
        ignore()
    witness.done()
    sys.stdout.flush()
    if code != DONE and launched():
        time.sleep(LINGER)
    wire = sys.modules.get("mpitrain.mpi.connect")
    job = wire.connected() if wire else None
    if job and job.ranks.bereaved:
        # MPI_Finalize waits for dead ranks that were alone on their host (Open MPI 5.0).
        _exit(code)
    sys.exit(code)


def _exit(code: int) -> NoReturn:
    """End the process here and now, with all that has been said."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
