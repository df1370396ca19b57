"""The float32 mean of ranks that share a host, for a thread with nothing else to do: in memory that
all of them see, without messages.

Each rank counts its stages beside its part of the memory, and looks at the others' counts until
they are as far: it spins, as MPI's blocking calls do. Short vectors take one stage, in which every
rank adds up all; of long ones each adds up one shard, a piece at a time that stays in the cache,
and takes the others' shards in a second stage. Sums are in rank order: the same bytes on every
rank.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mpitrain.exchange.window import NOTE, add
from mpitrain.job.cut import shards
from mpitrain.mpi.blocking import Floats

SHORT = 1 << 13
"""Values up to which every rank adds up all: reading 32 KiB of each takes less than a second
stage."""
PIECE = 1 << 18
"""Values at a time: of 2^14 to 2^18 the quickest with two and with four ranks, from 256 KiB to 100
MiB."""
LOOKS = 50
"""At a count before the core is offered to others; a rank that is as far has counted by then."""
PATIENCE = 20_000
"""Looks, some ten milliseconds, before it sleeps between them, and lets MPI see whether the other
is still there."""
NAP = 5e-4


class Host(Protocol):
    """What this module needs of the ranks; mpi's SharedMemory has it."""

    rank: int
    size: int

    def share(self, count: int) -> Sequence[Floats]: ...

    def fence(self, written: int = 0) -> None: ...

    def notice(self) -> None: ...

    def barrier(self) -> None: ...


class Spin:
    """Two slots in shared memory take turns: who begins to write one has seen all others begin, and
    so leave, the one after its last use."""

    def __init__(self, host: Host) -> None:
        """Collective. Raises UserError on every rank where the ranks cannot share memory."""
        self._host, self._share = host, np.float32(1 / host.size)
        memories = host.share(floats())
        self._slots = [
            [memory[NOTE + slot * PIECE : NOTE + (slot + 1) * PIECE] for memory in memories]
            for slot in (0, 1)
        ]
        counts = [memory[:2].data.cast("B").cast("q") for memory in memories]
        self._count = counts[host.rank]
        self._others = [count for rank, count in enumerate(counts) if rank != host.rank]
        self._count[0] = self._stage = self._turn = 0
        host.barrier()

    def mean(self, source: Floats, mean: Floats) -> None:
        """mean = the mean over ranks of source; flat and C-ordered, and one array or two that share
        no memory. Collective."""
        if source.size <= SHORT:
            self._short(source, mean)
            return
        for start in range(0, source.size, PIECE):
            stop = start + PIECE
            self._long(source[start:stop], mean[start:stop])

    def _short(self, source: Floats, mean: Floats) -> None:
        size, rank = source.size, self._host.rank
        slots = self._next()
        slots[rank][:size] = source
        self._meet(source.nbytes)
        np.add(slots[0][:size], slots[1][:size], out=mean)
        for each in slots[2:]:
            np.add(mean, each[:size], out=mean)
        np.multiply(mean, self._share, out=mean)

    def _long(self, source: Floats, mean: Floats) -> None:
        host, slots = self._host, self._next()
        cuts, mine = shards(source.size, host.size), slots[host.rank]
        start, stop = cuts[host.rank]
        mine[:start], mine[stop : source.size] = source[:start], source[stop:]
        self._meet(source.nbytes)
        parts = [source if rank == host.rank else each for rank, each in enumerate(slots)]
        add(mine, parts, start, stop, self._share)
        self._meet()
        for each, (start, stop) in zip(slots, cuts, strict=True):
            mean[start:stop] = each[start:stop]

    def _next(self) -> list[Floats]:
        self._turn ^= 1
        return self._slots[self._turn]

    def _meet(self, written: int = 0) -> None:
        """Return when all ranks are here; each then sees what the others have written before."""
        self._host.fence(written)
        self._stage += 1
        stage = self._count[0] = self._stage
        for count in self._others:
            looks = 0
            while count[0] < stage:
                looks += 1
                if looks > LOOKS:
                    self._pause(looks)
        self._host.fence()

    def _pause(self, looks: int) -> None:
        if looks < PATIENCE:
            os.sched_yield()
        else:
            self._host.notice()
            time.sleep(NAP)


def floats() -> int:
    """Of shared memory that each rank's part takes."""
    return NOTE + 2 * PIECE
