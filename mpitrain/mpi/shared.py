"""Memory that the ranks of a host share, and the barriers between writing and reading it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.job.cut import round_up
from mpitrain.job.errors import UserError
from mpitrain.mpi.agree import Agree
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.transfer import Transfer
from mpitrain.mpi.wait import Messages, failure

SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory; containers often have little of it."""
PAGE = 1024
"""Float32 of a page of memory, on which each rank's part begins."""
FREE_SHARE_MAX = 0.7
"""At most this share of the free space may be taken."""


class SharedMemory:
    """One window of shared memory for all ranks of a host; made by the first `share`."""

    def __init__(
        self,
        ranks: Ranks,
        agree: Agree,
        transfer: Transfer,
        within: MPI.Intracomm,
        facts: MPI.Intracomm,
        sent: Sent,
    ) -> None:
        """within: a communicator of this host's ranks. facts: one of all ranks, for `notice`."""
        self.rank, self.size = ranks.rank, ranks.size
        self._ranks, self._agree, self._transfer, self._sent = ranks, agree, transfer, sent
        self._within, self._facts = within, facts
        self._window: MPI.Win | None = None
        self._floats = 0
        self._kept: NDArray[np.float32] | None = None

    def share(self, count: int) -> list[NDArray[np.float32]]:
        """Every rank's vector of `count` float32, in rank order; all ranks see them. Collective.

        Calls return the same memory, until one asks for more: then earlier vectors must not be used
        any more. Raises UserError on every rank if ranks are on several hosts, or if the host has
        too little shared memory.
        """
        if self._window is None or count > self._floats:
            self._agree.together(lambda: self._check_room(4 * count))
            self._free()
            self._floats = round_up(count, PAGE)
            self._window = self._allocate(self._floats)
        self.barrier()  # all ranks are done with what was there before
        return [each[:count] for each in self._seen(self._window)]

    def keep(self, count: int) -> NDArray[np.float32] | None:
        """`count` float32 of zeros, which all ranks see. They are never freed, but given out again
        by the next call. None on every rank where the host has no room for them, or there are
        several. Collective."""
        if self._kept is not None and self._kept.size >= count:
            self.barrier()  # all ranks are done with what was there before
            if self.rank == 0:
                self._kept[:count] = 0
            self.barrier()
        elif self._is_roomy(count / self.size):
            self._kept = self._seen(self._allocate(count if self.rank == 0 else 0))[0]
            if self.size == 1:  # MPI takes it from the heap then, else new from the system
                self._kept[:] = 0
        else:
            return None
        return self._kept[:count]

    def _allocate(self, count: int) -> MPI.Win:
        window = MPI.Win.Allocate_shared(4 * count, 4, comm=self._within)
        window.Lock_all(MPI.MODE_NOCHECK)
        return window

    def _seen(self, window: MPI.Win) -> list[NDArray[np.float32]]:
        """Each rank's part of a window."""
        memories: list[Any] = [window.Shared_query(rank)[0] for rank in range(self.size)]
        return [np.frombuffer(memory, np.float32) for memory in memories]

    def has_room(self, count: int) -> bool:
        """Whether `share` would succeed, the same on every rank. Collective."""
        return (self._window is not None and count <= self._floats) or self._is_roomy(count)

    def _is_roomy(self, count: float) -> bool:
        try:
            self._agree.together(lambda: self._check_room(int(4 * count)))
        except UserError:
            return False
        return True

    def barrier(self) -> None:
        """Return when every rank has called it. Sleeps while it waits."""
        self._agree.barrier()

    def start_barrier(self, lane: int, written: int = 0) -> Messages:
        """Start a barrier. When it is done, all ranks see what each of them wrote before it.

        written: bytes that this rank wrote, to count.
        """
        self._sent.exchange += written
        if self._window is not None:
            self._window.Sync()
        return self._transfer.start_barrier(lane)

    def fence(self, written: int = 0) -> None:
        """Order memory accesses: those before this call take effect before those after it.

        written: bytes that this rank wrote, to count. Not collective.
        """
        self._ranks.delay.inject()
        self._sent.exchange += written
        if self._window is not None:
            self._window.Sync()

    def notice(self) -> None:
        """Let MPI advance its messages. Raises RunError if MPI knows that a rank has died.

        Not collective.
        """
        try:
            self._facts.Iprobe()
        except MPI.Exception as error:
            raise failure(self._ranks, error) from error

    def _check_room(self, nbytes: int) -> None:
        """Raise UserError if memory is short: Linux would kill the process at its first write."""
        if not self._ranks.one_host:
            raise UserError(
                f"--exchange window: the {self.size} ranks are on several hosts; "
                "dynamic8 shares memory within each"
            )
        if SHARED.exists():
            facts = os.statvfs(SHARED)
            room, wanted = facts.f_bavail * facts.f_frsize, nbytes * self.size
            if wanted > FREE_SHARE_MAX * room:
                raise UserError(
                    f"--exchange window: {wanted >> 20} MiB of shared memory wanted, "
                    f"{SHARED} has {room >> 20} MiB"
                )

    def _free(self) -> None:
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None
