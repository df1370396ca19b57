"""How a rank's vectors get into the memory that the ranks of its host share, and out of it.

All ways do the same to that memory, so that ranks on unlike devices may meet there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.codec_protocol import Floats, V, Vector
from mpitrain.job.cut import parts, round_up
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.ahead import Copies
from mpitrain.runtime.array import ALIGNED, Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Launches

Range = tuple[int, int]
Shared = NDArray[Any]
"""A piece of shared memory, of the type of the vectors that it holds."""
CACHED = 1 << 15
"""Values added up at a time: 128 KiB, which stay in a core's cache between two additions."""


@dataclass(frozen=True)
class Sum:
    """What is to be added up of vectors in shared memory."""

    terms: Sequence[Floats]
    """By rank, in the order in which they are added up."""
    mine: int
    """The number of this rank's own term, whose place the result takes."""
    range: Range
    """Where: values [start, stop), of which start is a multiple of ALIGNED."""
    factor: np.float32
    """What the sum is multiplied by."""
    slot: int
    """Work on one slot is that of one vector at a time."""
    kept: bool
    """Whether this rank's vector takes the result over."""
    read: bool
    """Whether other ranks read the result."""


Taken = TypeVar("Taken", bound=Vector, contravariant=True)


class Reach(Protocol[Taken]):
    """How a rank's vectors get into shared memory and out of it."""

    lacks: str
    """What makes it slower than it could be; empty if nothing does."""

    def put(self, x: Taken, shared: Shared, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        """Copy these ranges of x to the same places of shared memory.

        queued: whether work that makes x may still be queued on its device.
        """

    def add(self, x: Taken, wanted: Sum) -> Hops[None]:
        """Add up a range of all terms, with x for this rank's own."""

    def take(self, pairs: Sequence[tuple[Taken, Shared]]) -> Hops[None]:
        """Fill each vector from as long a piece of shared memory."""

    def close(self) -> None:
        """Let go of the shared memory."""


class Mapped:
    """Vectors that the host sees: what the processor copies and adds up."""

    lacks = ""

    def put(self, x: V, shared: Shared, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        with x.host() as values:
            for start, stop in ranges:
                shared[start:stop] = values[start:stop]
        yield from ()

    def add(self, x: V, wanted: Sum) -> Hops[None]:
        total, (start, stop) = wanted.terms[wanted.mine], wanted.range
        with x.host(write=wanted.kept) as values:
            terms = [values if n == wanted.mine else each for n, each in enumerate(wanted.terms)]
            add(total, terms, start, stop, wanted.factor)
            if wanted.kept:
                values[start:stop] = total[start:stop]
        yield from ()

    def take(self, pairs: Sequence[tuple[V, Shared]]) -> Hops[None]:
        for x, shared in pairs:
            if x.size:
                with x.host(write=True, read=False) as values:
                    values[:] = shared
        yield from ()

    def close(self) -> None:
        """It holds nothing."""


class ByDevice:
    """Vectors of a device with memory of its own, which copies and adds up itself, while this rank
    goes on with other vectors. The shared memory is pinned for it.

    By way of the host two H200 took 4.4 ms for 8 MiB, most of it the processor's copies and sums.
    """

    def __init__(self, device: Device, memory: Sequence[Shared], most: int) -> None:
        """memory: all that is shared, by rank. most: values that this rank adds up at once; 0: it
        adds up nothing."""
        self._device, self._copies = device, Copies(device, memory)
        self.lacks = "" if self._copies.pinned else "memory that is not pinned"
        self._stride = round_up(most, ALIGNED)
        """Values from the beginning of another rank's term to that of the next."""
        self._others: dict[int, Array] = {}
        """Slot -> their place on the device."""
        self._totals: dict[int, Array] = {}
        self._terms = device.program("terms") if most else None
        self._launches = Launches(device)

    def put(self, x: Array, shared: Shared, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        pairs = [(shared[a:b], x.part(a, b)) for a, b in ranges if b > a]
        yield self._copies.down(pairs, queued)

    def add(self, x: Array, wanted: Sum) -> Hops[None]:
        assert self._terms, "it was made to add up something"
        (start, stop), mine, stride = wanted.range, wanted.mine, self._stride
        count, wide = stop - start, self._device.wide
        if not count:
            yield self._copies.up([])  # a hop all the same: vectors keep their order by hops
            return
        rest = [each[start:stop] for n, each in enumerate(wanted.terms) if n != mine]
        others = self._place(self._others, wanted.slot, len(rest) * stride)
        own = x.part(start, stop)
        total = own if wanted.kept else self._place(self._totals, wanted.slot, stride)
        brought = self._copies.up(
            [(each, others.part(n * stride, n * stride + count)) for n, each in enumerate(rest)]
        )
        self._launches.queue(
            self._terms.mean_of_terms, parts(count, wide), total, own, others, count, wide,
            len(wanted.terms), mine, stride, float(wanted.factor), group=self._device.group,
        )  # fmt: skip
        if wanted.read:
            yield self._copies.down([(wanted.terms[mine][start:stop], total.part(0, count))], True)
            del brought  # not before: dropped while it copies, it keeps this thread waiting
        else:
            yield brought

    def take(self, pairs: Sequence[tuple[Array, Shared]]) -> Hops[None]:
        yield self._copies.up([(shared, x) for x, shared in pairs])

    def close(self) -> None:
        self._copies.close()

    def _place(self, places: dict[int, Array], slot: int, count: int) -> Array:
        if slot not in places:
            places[slot] = self._device.empty((count,))
        return places[slot]


def reach(device: Device | None, memory: Sequence[Shared], most: int) -> Reach[Any]:
    """How a rank's vectors reach shared memory.

    device: of the vectors; None: the host sees them. most: values that this rank adds up at once;
    0: it adds up nothing.
    """
    if device is None or device.shares_memory:
        return Mapped()
    return ByDevice(device, memory, most)


def add(total: Floats, terms: Sequence[Floats], start: int, stop: int, factor: np.float32) -> None:
    """total[start:stop] = factor * (the sum of terms[:][start:stop], in their order)."""
    for at in range(start, stop, CACHED):
        here = slice(at, min(at + CACHED, stop))
        np.add(terms[0][here], terms[1][here], out=total[here])
        for term in terms[2:]:
            np.add(total[here], term[here], out=total[here])
        if factor != 1:
            np.multiply(total[here], factor, out=total[here])
