"""The wire of this process to all ranks of its job, and of whoever brings a communicator; abort."""

from __future__ import annotations

import os
import sys

from mpi4py import MPI

from mpitrain.mpi.launch import check_launch
from mpitrain.mpi.ranks import library
from mpitrain.mpi.wire import Wire, make

_connected: Wire | None = None


def connect() -> Wire:
    """This rank's wire to all ranks of the job, made once.

    Collective. Raises UserError if the launcher started more ranks than MPI sees.
    """
    global _connected
    if _connected is None:
        check_launch(MPI.COMM_WORLD.size, os.environ, library())
        _connected = make(MPI.COMM_WORLD)
    return _connected


def connected() -> Wire | None:
    """The wire of this process, if it has joined its job."""
    return _connected


def replace(old: Wire, new: Wire) -> None:
    """`connected` is the new wire from now on, if it was the old one."""
    global _connected
    if _connected is old:
        _connected = new


_KEY = MPI.Comm.Create_keyval()
_latest: tuple[MPI.Intracomm, Wire] | None = None
"""What `over` returned last: asking MPI takes a microsecond, a thirtieth of a short vector's
time."""


def over(communicator: MPI.Intracomm, host: int | None = None) -> Wire:
    """The wire over a communicator of the caller's; made once by all its ranks, and kept with it.

    host: as `make` takes it.
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
    """End every rank of the job at once with an exit code; any one rank may, and does not
    return."""
    sys.stdout.flush()
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(code)


def finalize() -> None:
    """Leave MPI, as the interpreter does at its end; for a process that ends without that."""
    if not MPI.Is_finalized():
        MPI.Finalize()
