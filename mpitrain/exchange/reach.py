"""How a rank's vectors get into the memory that the ranks of its host share, and out of it.

All ways do the same to that memory, so that ranks on unlike devices may meet there.
"""

from __future__ import annotations

from collections.abc import Sequence
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


Taken = TypeVar("Taken", bound=Vector, contravariant=True)


class Reach(Protocol[Taken]):
    """What a window asks of a rank."""

    def put(self, x: Taken, shared: Floats, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        """Copy these ranges of x to the same places of shared memory.

        queued: whether x is what work queued on the device will make of it, and not there yet.
        """

    def add(
        self,
        x: Taken,
        terms: Sequence[Floats],
        mine: int,
        where: Range,
        factor: np.float32,
        slot: int,
    ) -> Hops[None]:
        """In that range terms[mine] becomes `factor` times the sum of x and all other terms, added
        up in the order of the terms, where x has the place of terms[mine]."""

    def take(self, x: Taken, shared: Sequence[tuple[Floats, Range]]) -> Hops[None]:
        """Fill these ranges of x from the same places of shared memory."""


class Mapped:
    """Vectors that the host sees: what the processor copies and adds up."""

    def put(self, x: V, shared: Floats, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        with x.host() as values:
            for start, stop in ranges:
                shared[start:stop] = values[start:stop]
        yield from ()

    def add(
        self, x: V, terms: Sequence[Floats], mine: int, where: Range, factor: np.float32, slot: int
    ) -> Hops[None]:
        with x.host() as values:
            parts = [values if number == mine else each for number, each in enumerate(terms)]
            add(terms[mine], parts, *where, factor)
        yield from ()

    def take(self, x: V, shared: Sequence[tuple[Floats, Range]]) -> Hops[None]:
        with x.host(write=True) as values:
            for each, (start, stop) in shared:
                values[start:stop] = each[start:stop]
        yield from ()


class ByDevice:
    """Vectors of a device with memory of its own, which copies and adds up itself, while this rank
    goes on with other vectors. The shared memory is pinned for it.

    Two H200 took 4.4 ms for 8 MiB by way of the host, of which nearly all was its processor's.
    """

    def __init__(self, device: Device, memory: Sequence[Floats], longest: int, slots: int) -> None:
        """memory: all that is shared, by rank. longest: values of the longest vector."""
        self._device, self._copies = device, Copies(device, memory)
        self._apart = round_up(parts(longest, len(memory)), STRETCH) + STRETCH
        counts = (self._apart * (len(memory) - 1), self._apart)
        self._scratch = [[device.empty((count,)) for count in counts] for _ in range(slots)]
        self._kernels, self._launches = device.program("terms"), Launches(device)

    def put(self, x: Array, shared: Floats, ranges: Sequence[Range], queued: bool) -> Hops[None]:
        pairs = [(shared[a:b], x.part(a, b)) for a, b in ranges if b > a]
        yield self._copies.down(pairs, queued)

    def add(
        self, x: Array, terms: Sequence[Floats], mine: int, where: Range, factor: np.float32,
        slot: int,
    ) -> Hops[None]:  # fmt: skip
        (start, stop), (others, total), apart = where, self._scratch[slot], self._apart
        count, wide = stop - start, self._device.wide
        if not count:
            yield self._copies.down([], False)
            return
        rest = [each[start:stop] for number, each in enumerate(terms) if number != mine]
        brought = self._copies.up(
            [(each, others.part(n * apart, n * apart + count)) for n, each in enumerate(rest)]
        )
        self._launches.queue(
            self._kernels.mean_of_terms, parts(count, wide), total, x.part(start, stop), others,
            count, wide, len(terms), mine, apart, float(factor), group=self._device.group,
        )  # fmt: skip
        yield self._copies.down([(terms[mine][start:stop], total.part(0, count))], True)
        del brought  # kept until it was done

    def take(self, x: Array, shared: Sequence[tuple[Floats, Range]]) -> Hops[None]:
        yield self._copies.up([(each[a:b], x.part(a, b)) for each, (a, b) in shared if b > a])


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
