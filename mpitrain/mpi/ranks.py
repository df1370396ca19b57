"""Describe the ranks of a communicator: numbers, hosts, and the MPI library between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mpi4py import MPI

from mpitrain.mpi.delay import Delay
from mpitrain.mpi.launch import outlives_ranks


class Ranks:
    """The ranks of one communicator. Its attributes never change."""

    def __init__(
        self,
        communicator: MPI.Intracomm,
        within: MPI.Intracomm,
        delay: Delay,
        numbers: Sequence[int] | None = None,
        began: int | None = None,
    ) -> None:
        """Collective. within: a communicator of the ranks that share this one's host.

        numbers: see the attribute; needed if these are not all ranks of the job. began: see the
        attribute; needed if ranks have died.
        """
        self.rank: int = communicator.rank
        self.size: int = communicator.size
        self.numbers: Sequence[int] = range(self.size) if numbers is None else numbers
        """What messages to the user call these ranks: their numbers when the job began."""
        self.began = self.size if began is None else began
        """How many ranks there were when the job began."""
        self.bereaved = began is not None
        """Whether ranks have died since the job began."""
        self.delay = delay
        self.local_rank: int = within.rank
        self.local_size: int = within.size
        leader = np.array([self.rank], np.int64)
        within.Bcast(leader, root=0)
        leaders = np.empty(self.size, np.int64)
        communicator.Allgather(leader, leaders)
        self.host = f"{os.uname().nodename}/{leader[0]}"
        """A name of this rank's host that is unique even if virtual hosts have one node name."""
        self.hosts = len(set(leaders.tolist()))
        """How many hosts the ranks are on."""
        self.one_host = self.hosts == 1

    @property
    def outlives_ranks(self) -> bool:
        """Whether MPI survives the death of a rank, and tells the others."""
        return outlives_ranks(os.environ)

    @property
    def threads(self) -> bool:
        """Whether several threads may call MPI at once, as with most libraries."""
        return bool(MPI.Query_thread() == MPI.THREAD_MULTIPLE)

    @property
    def name(self) -> str:
        """This rank's name in messages, with its host if there are several."""
        where = "" if self.one_host else f" on {self.host.rpartition('/')[0]}"
        return f"rank {self.numbers[self.rank]} of {self.began}{where}"

    @property
    def library(self) -> str:
        """The MPI library's version and path, for the header of a run."""
        return library()

    def __repr__(self) -> str:
        return f"Ranks(rank {self.rank} of {self.size})"


def library() -> str:
    """The MPI library's version and path."""
    version = MPI.Get_library_version().partition("\0")[0]
    first = " ".join(version.splitlines()[0].replace("Version:", "").split())
    return f"{first.partition(', package')[0]} ({_library_path() or 'path unknown'})"


def _library_path() -> str | None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    for line in maps.read_text().splitlines():
        path = line.partition("/")[2]
        if path.rpartition("/")[2].startswith(("libmpi.so", "libmpich.so", "libmpi_abi.so")):
            return "/" + path
    return None
