"""Connect this process: to all ranks of its job, or over a caller's communicator; abort the job."""

from __future__ import annotations

import os
import sys

from mpi4py import MPI

from mpitrain.mpi.launch import check_launch
from mpitrain.mpi.ranks import library
from mpitrain.mpi.wire import Wire, make

_connected: Wire | None = None


def connect() -> Wire:
    """The wire between all ranks of the job, made once.

    Collective. Raises UserError if MPI sees another number of ranks than the launcher started.
    """
    global _connected
    if _connected is None:
        check_launch(MPI.COMM_WORLD.size, os.environ, library())
        _connected = make(MPI.COMM_WORLD)
    return _connected


def connected() -> Wire | None:
    """What `connect` has made, or None."""
    return _connected


def replace(old: Wire, new: Wire) -> None:
    """Let `connected` return the new wire, if it returned the old one."""
    global _connected
    if _connected is old:
        _connected = new


_KEY = MPI.Comm.Create_keyval()
_latest: tuple[MPI.Intracomm, Wire] | None = None
"""What `over` returned last. Asking MPI takes a microsecond, of 30 for a short vector's mean."""


def over(communicator: MPI.Intracomm, host: int | None = None) -> Wire:
    """The wire over a caller's communicator, made at the first call and kept with the communicator.

    The first call is collective. host: as for `make`.
    """
    global _latest
    if _latest is not None and _latest[0] is communicator:
        return _latest[1]
    known = communicator.Get_attr(_KEY)
    wire = known if isinstance(known, Wire) else make(communicator, host=host)
    if wire is not known:
        communicator.Set_attr(_KEY, wire)
    _latest = communicator, wire
    return wire


def abort(code: int) -> None:
    """End all ranks of the job at once with an exit code. A single rank may call it."""
    sys.stdout.flush()
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(code)
