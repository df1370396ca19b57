"""The float32 mean over ranks that share a host, through shared memory, with the least delay.

It is for a thread with nothing else to do: like MPI's blocking calls, it spins while it waits. Each
rank counts its stages beside its part of the memory, and reads the others' counts until they are as
high as its own. Short vectors take one stage, in which every rank adds up everything. Long vectors
take two stages for each piece that fits the cache: each rank adds up one shard, then copies the
other ranks' shards. Sums are in rank order, so that every rank has the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mpitrain.exchange.reach import add
from mpitrain.exchange.window import NOTE_FLOATS
from mpitrain.job.cut import shards
from mpitrain.mpi.blocking import Floats

SHORT = 1 << 13
"""Values up to which every rank adds up everything: reading 32 KiB of each rank takes less time
than a second stage."""
PIECE = 1 << 18
"""Values of a long vector at a time. Of 2^14 to 2^18 the fastest with two and with four ranks, for
vectors of 256 KiB to 100 MiB."""
LOOKS_WITHOUT_YIELD = 50
"""Looks at another rank's count before the core is offered to others. Most ranks arrive sooner."""
LOOKS_WITHOUT_NAP = 20_000
"""Looks (some ten milliseconds) after which the waiting rank sleeps between looks, and asks MPI
whether the other rank is still alive."""
NAP_SECONDS = 5e-4


class Host(Protocol):
    """What this module needs of the ranks; mpi's SharedMemory has it."""

    rank: int
    size: int

    def share(self, count: int) -> Sequence[Floats]: ...

    def fence(self, written: int = 0) -> None: ...

    def notice(self) -> None: ...

    def barrier(self) -> None: ...


class Spin:
    """Averages in two slots of shared memory, which take turns.

    A rank writes to a slot when all ranks have begun to use the other one, and so no longer read
    the first.
    """

    def __init__(self, host: Host) -> None:
        """Collective. Raises UserError on every rank where the ranks cannot share memory."""
        self._host, self._factor = host, np.float32(1 / host.size)
        memories = host.share(floats())
        self._slots = [
            [
                memory[NOTE_FLOATS + slot * PIECE : NOTE_FLOATS + (slot + 1) * PIECE]
                for memory in memories
            ]
            for slot in (0, 1)
        ]
        counts = [memory[:2].data.cast("B").cast("q") for memory in memories]
        self._count = counts[host.rank]
        self._others = [count for rank, count in enumerate(counts) if rank != host.rank]
        self._count[0] = self._stage = self._slot = 0
        host.barrier()

    def mean(self, source: Floats, mean: Floats) -> None:
        """mean = the mean over ranks of source. Collective.

        Both are flat and C-ordered; one array, or two that share no memory.
        """
        if source.size <= SHORT:
            self._mean_of_short(source, mean)
            return
        for start in range(0, source.size, PIECE):
            stop = start + PIECE
            self._mean_of_piece(source[start:stop], mean[start:stop])

    def _mean_of_short(self, source: Floats, mean: Floats) -> None:
        size, rank = source.size, self._host.rank
        slots = self._next_slots()
        slots[rank][:size] = source
        self._meet(source.nbytes)
        np.add(slots[0][:size], slots[1][:size], out=mean)
        for each in slots[2:]:
            np.add(mean, each[:size], out=mean)
        np.multiply(mean, self._factor, out=mean)

    def _mean_of_piece(self, source: Floats, mean: Floats) -> None:
        host, slots = self._host, self._next_slots()
        cuts, mine = shards(source.size, host.size), slots[host.rank]
        start, stop = cuts[host.rank]
        mine[:start], mine[stop : source.size] = source[:start], source[stop:]
        self._meet(source.nbytes)
        parts = [source if rank == host.rank else each for rank, each in enumerate(slots)]
        add(mine, parts, start, stop, self._factor)
        self._meet()
        for each, (start, stop) in zip(slots, cuts, strict=True):
            mean[start:stop] = each[start:stop]

    def _next_slots(self) -> list[Floats]:
        """Every rank's part of the slot whose turn it is."""
        self._slot ^= 1
        return self._slots[self._slot]

    def _meet(self, written: int = 0) -> None:
        """Wait until all ranks have come here; each then sees what the others wrote before.

        written: bytes that this rank wrote, to count.
        """
        self._host.fence(written)
        self._stage += 1
        stage = self._count[0] = self._stage
        for count in self._others:
            looks = 0
            while count[0] < stage:
                looks += 1
                if looks > LOOKS_WITHOUT_YIELD:
                    self._pause(looks)
        self._host.fence()

    def _pause(self, looks: int) -> None:
        if looks < LOOKS_WITHOUT_NAP:
            os.sched_yield()
        else:
            self._host.notice()
            time.sleep(NAP_SECONDS)


def floats() -> int:
    """How many float32 of shared memory each rank's part takes."""
    return NOTE_FLOATS + 2 * PIECE
