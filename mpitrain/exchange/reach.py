"""How a rank's vectors get into the memory that the ranks of its host share, and out of it.

All ways do the same to that memory, so that ranks on unlike devices may meet there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from mpitrain.exchange.codec_protocol import Floats, V, Vector
from mpitrain.job.cut import parts, round_up
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.ahead import Copies
from mpitrain.runtime.array import ALIGNMENT, Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Launches

Range = tuple[int, int]
CACHED = 1 << 15
"""Values added up at a time: 128 KiB, which stay in a core's cache between two additions."""
STRETCH = ALIGNMENT // 4
"""Values of which ranges that a device adds up begin at multiples."""


@dataclass(frozen=True)
class Sum:
    """What is to be added up of vectors in shared memory."""

    terms: Sequence[Floats]
    """By rank, in the order in which they are added up."""
    mine: int
    """Which of them is this rank's own: in the range it is the result's place."""
    range: Range
    factor: np.float32
    """What the sum is multiplied by."""
    kept: bool
    """Whether this rank's vector takes the result over."""
    shared: bool
    """Whether other ranks read the result."""


Taken = TypeVar("Taken", bound=Vector, contravariant=True)


class Reach(Protocol[Taken]):
    """What a window asks of a rank."""

    def put(self, x: Taken, shared: Floats, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        """Copy these ranges of x to the same places of shared memory.

        queued: whether x is what work queued on the device will make of it, and not there yet.
        """

    def add(self, x: Taken, sum: Sum, slot: int) -> Hops[None]:
        """Add up a range of all terms, x for this rank's. Work on one slot is that of one vector
        at a time."""

    def take(self, x: Taken, shared: Sequence[tuple[Floats, Range]]) -> Hops[None]:
        """Fill these ranges of x from the same places of shared memory."""


class Mapped:
    """Vectors that the host sees: what the processor copies and adds up."""

    def put(self, x: V, shared: Floats, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        with x.host() as values:
            for start, stop in ranges:
                shared[start:stop] = values[start:stop]
        yield from ()

    def add(self, x: V, sum: Sum, slot: int) -> Hops[None]:
        total, (start, stop) = sum.terms[sum.mine], sum.range
        with x.host(write=sum.kept) as values:
            terms = [values if n == sum.mine else each for n, each in enumerate(sum.terms)]
            add(total, terms, start, stop, sum.factor)
            if sum.kept:
                values[start:stop] = total[start:stop]
        yield from ()

    def take(self, x: V, shared: Sequence[tuple[Floats, Range]]) -> Hops[None]:
        with x.host(write=True) as values:
            for each, (start, stop) in shared:
                values[start:stop] = each[start:stop]
        yield from ()


class ByDevice:
    """Vectors of a device with memory of its own, which copies and adds up itself, while this rank
    goes on with other vectors. The shared memory is pinned for it.

    By way of the host two H200 took 4.4 ms for 8 MiB, nearly all of it the processor's copies.
    """

    def __init__(self, device: Device, memory: Sequence[Floats], longest: int, slots: int) -> None:
        """memory: all that is shared, by rank. longest: values of the longest vector."""
        self._device, self._copies = device, Copies(device, memory)
        self._longest, self._slots, self._ranks = longest, slots, len(memory)
        self._scratch: dict[int, tuple[Array, Array]] = {}
        self._kernels, self._launches = device.program("terms"), Launches(device)

    def put(self, x: Array, shared: Floats, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        pairs = [(shared[a:b], x.part(a, b)) for a, b in ranges if b > a]
        yield self._copies.down(pairs, queued)

    def add(self, x: Array, sum: Sum, slot: int) -> Hops[None]:
        start, stop = sum.range
        count, wide = stop - start, self._device.wide
        if not count:
            yield self._copies.up([])
            return
        apart = round_up(count, STRETCH)
        others, total = self._room(slot, apart)
        rest = [each[start:stop] for n, each in enumerate(sum.terms) if n != sum.mine]
        places = [others.part(n * apart, n * apart + count) for n in range(len(rest))]
        brought, own = self._copies.up(list(zip(rest, places, strict=True))), x.part(start, stop)
        total = own if sum.kept else total.part(0, count)
        self._launches.queue(
            self._kernels.mean_of_terms, parts(count, wide), total, own, others, count, wide,
            len(sum.terms), sum.mine, apart, float(sum.factor), group=self._device.group,
        )  # fmt: skip
        if sum.shared:
            yield self._copies.down([(sum.terms[sum.mine][start:stop], total)], True)
        else:
            yield brought

    def take(self, x: Array, shared: Sequence[tuple[Floats, Range]]) -> Hops[None]:
        yield self._copies.up([(each[a:b], x.part(a, b)) for each, (a, b) in shared if b > a])

    def _room(self, slot: int, count: int) -> tuple[Array, Array]:
        """A slot's place for all other terms of so many values, and for one sum."""
        found = self._scratch.get(slot)
        if found is None or found[1].size < count:
            empty = self._device.empty
            found = empty((max(1, self._ranks - 1) * count,)), empty((count,))
            self._scratch[slot] = found
        return found


def reach(device: Device | None, memory: Sequence[Floats], longest: int, slots: int) -> Any:
    """How vectors of a device (None: of the host) reach shared memory."""
    if device is None or device.shares_memory:
        return Mapped()
    return ByDevice(device, memory, longest, slots)


def add(total: Floats, parts: Sequence[Floats], start: int, stop: int, factor: np.float32) -> None:
    """total[start:stop] = factor * (the sum of parts[:][start:stop], in their order)."""
    for at in range(start, stop, CACHED):
        here = slice(at, min(at + CACHED, stop))
        np.add(parts[0][here], parts[1][here], out=total[here])
        for part in parts[2:]:
            np.add(total[here], part[here], out=total[here])
        if factor != 1:
            np.multiply(total[here], factor, out=total[here])
