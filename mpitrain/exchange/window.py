"""Average and spread within a host through memory that all its ranks share: exact, no messages.

Each rank adds up one shard: it copies the rest of its vector into its slice of the shared memory,
adds up its shard of all ranks' vectors in rank order, and writes the mean of the shard into its own
slice, from which ranks that need it copy it. Or rank 0 adds up whole vectors (`root_adds`). How a
rank copies and adds, reach.py says. Slots take turns, so that one bucket is copied while another is
added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.codec_protocol import Floats, V
from mpitrain.exchange.reach import Reach, Sum, reach
from mpitrain.exchange.stream import BUCKETS_AT_ONCE
from mpitrain.job.cut import aligned_shards, round_up
from mpitrain.mpi.hops import Hops, Pending
from mpitrain.runtime.array import ALIGNED
from mpitrain.runtime.device import Device

SLOTS = 2
"""Buckets in the shared memory at once, where there is no room for BUCKETS_AT_ONCE."""
NOTE_FLOATS = 16
"""Floats beside each vector, a line of the cache, for a number that is spread with it."""
COPIED, ADDED, WRITTEN, LEFT = 0, 1, 2, 3
"""Lanes of mpi's Transfer. Each kind of barrier has one, where all ranks start it in one order."""
BARRIERS = {COPIED: "gradients are there", ADDED: "means are there", WRITTEN: "weights are there"}
"""What is so after each barrier that somebody waits for, in words, for --trace."""


class Host(Protocol):
    """What this module needs of the ranks; mpi's SharedMemory has it."""

    rank: int
    size: int

    def share(self, count: int) -> Sequence[Floats]: ...

    def start_barrier(self, lane: int, written: int = 0) -> Pending: ...


class Window(Generic[V]):
    """Shared memory for vectors of up to `longest` values, in slots.

    Vector number n uses slot n modulo the number of slots, as soon as that is free.
    """

    def __init__(
        self,
        host: Host,
        longest: int,
        slots: int = SLOTS,
        apart: bool = False,
        device: Device | None = None,
        root_adds: bool = False,
    ) -> None:
        """Collective. Raises UserError on every rank where ranks cannot share so much memory.

        apart: `spread` comes when other vectors have used the slot; otherwise right after `mean`,
        which keeps the slot for it. device: of the vectors; None: the host sees them. root_adds:
        rank 0 adds up the whole of a vector whose sum it alone gets.
        """
        self._host, self._stride = host, floats(longest, 1)
        self._apart, self._root_adds = apart, root_adds
        self._slices = host.share(floats(longest, slots))
        self._uses = [SlotUse() for _ in range(slots)]
        most = max(stop - start for start, stop in self._cuts(longest, root_adds))
        self._reach: Reach[V] = reach(device, self._slices, most)

    def mean(self, x: V, images: int, to_all: bool, number: int) -> Hops[None]:
        """x becomes the sum over ranks divided by `images`, on every rank or on rank 0 alone.

        On the other ranks x stays as it is. To be called when the work that makes x is done.
        """
        host, slices, use = self._host, self._slot(number, x.size), self._use(number)
        yield use
        use.taken = True
        gets, read = to_all or host.rank == 0, to_all or host.rank != 0
        cuts = self._cuts(x.size, self._root_adds and not to_all)
        (start, stop), slot = cuts[host.rank], number % len(self._uses)
        rest, factor = [(0, start), (stop, x.size)], np.float32(1 / images)
        yield from self._reach.put(x, slices[host.rank], rest, queued=False)
        # A vector counts once; none where rank 0 adds up all by itself.
        yield host.start_barrier(COPIED, slices[0].nbytes if read or stop < x.size else 0)
        wanted = Sum(slices, host.rank, (start, stop), factor, slot, gets, read)
        yield from self._reach.add(x, wanted)
        yield host.start_barrier(ADDED)
        if gets:
            yield from self._reach.take(
                [
                    (x.part(*cut), slices[rank][slice(*cut)])
                    for rank, cut in enumerate(cuts)
                    if rank != host.rank and cut[1] > cut[0]
                ]
            )
        if to_all or self._apart:
            use.leave(host.start_barrier(LEFT))

    def spread(self, y: V, w: V | None, number: int, note: float = 0.0) -> Hops[float]:
        """Copy rank 0's w into y on the other ranks, which pass None for w; return rank 0's note.

        Follows a `mean` of the same number that was not `to_all`, unless they are apart.
        """
        host, slices = self._host, self._slot(number, y.size)
        note_beside, use = self._note(number), self._use(number)
        if self._apart:
            yield use
            use.taken = True
        whole = (0, y.size)
        if w is not None:
            yield from self._reach.put(w, slices[0], [whole], queued=True)
            note_beside[0] = note
        yield host.start_barrier(WRITTEN, slices[0].nbytes if w is not None else 0)
        if w is None:
            yield from self._reach.take([(y, slices[0])])
        received_note = float(note_beside[0])
        use.leave(host.start_barrier(LEFT))
        return received_note

    def close(self) -> None:
        """Let go of the shared memory."""
        self._reach.close()

    @property
    def lacks(self) -> str:
        """What makes it slower than it could be; empty if nothing does."""
        few = "" if len(self._uses) >= BUCKETS_AT_ONCE else f"room for {len(self._uses)} buckets"
        return ", ".join(filter(None, (few, self._reach.lacks)))

    def _cuts(self, count: int, root_adds: bool) -> list[tuple[int, int]]:
        """The range that each rank adds up, which begins where a part of an array may."""
        if root_adds:
            return [(0, count), *[(count, count)] * (self._host.size - 1)]
        return aligned_shards(count, self._host.size, ALIGNED)

    def _slot(self, number: int, size: int) -> list[Floats]:
        """Every rank's slice of this vector's slot."""
        start = number % len(self._uses) * self._stride
        return [each[start : start + size] for each in self._slices]

    def _note(self, number: int) -> NDArray[np.float64]:
        end = (number % len(self._uses) + 1) * self._stride
        return self._slices[0][end - NOTE_FLOATS : end].view(np.float64)

    def _use(self, number: int) -> SlotUse:
        return self._uses[number % len(self._uses)]


def floats(longest: int, slots: int = SLOTS) -> int:
    """How many float32 of shared memory each rank's part of a window takes."""
    return slots * (round_up(longest, NOTE_FLOATS) + NOTE_FLOATS)


def slots_that(fit: Callable[[int], bool], longest: int) -> int:
    """For how many vectors of up to `longest` values at once there is room; 0: for too few.

    fit: whether each rank can have so many float32, the same on every rank.
    """
    counts = (BUCKETS_AT_ONCE, SLOTS)
    return next((count for count in counts if fit(floats(longest, count))), 0)


class SlotUse:
    """Whether a slot is in use; `done` when all ranks have left the vector before."""

    def __init__(self) -> None:
        self.taken = False
        self._left: Pending | None = None

    def leave(self, left: Pending) -> None:
        """This rank no longer needs the slot; `left` is done when no rank needs it."""
        self.taken, self._left = False, left

    def done(self) -> bool:
        return not self.taken and (self._left is None or self._left.done())

    def wait(self) -> None:
        if self._left is not None:
            self._left.wait()
