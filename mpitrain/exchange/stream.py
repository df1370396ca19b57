"""A thread that brings buckets to new weights while the backward pass goes on: several on their way
at once, in one fixed order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable

from mpitrain.mpi.hops import Hops, Pending
from mpitrain.mpi.naps import Naps

MOST = 4
"""Flights on their way at once: parts, means, deltas, and one that begins."""
COMPUTING = Naps(yields=0, shortest=1e-4, longest=1e-3)
"""Between two looks while the backward pass computes: looking takes time from the computation."""
WAITING = Naps(yields=30, shortest=1e-5, longest=5e-4)
"""Between two looks when nothing is left but to wait for the exchange. A barrier within a host
takes 0.01 ms."""


class Flights:
    """Takes each flight (the hops of one bucket) as far as it can go, in the order in which they
    were added.

    A flight never overtakes: it begins its k-th hop after the one before has begun its k-th, or has
    landed. So all ranks do the same operations in the same order on each communicator, whatever
    arrives first.
    """

    def __init__(self) -> None:
        self._flights: deque[_Flight] = deque()

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, hops: Hops[None]) -> None:
        """One more, which may now set out."""
        self._flights.append(_Flight(hops))

    def look(self, alive: Callable[[], None] | None = None) -> bool:
        """Take every flight as far as it can go; whether any moved. alive: called at each hop."""
        moved, before = False, None
        for flight in self._flights:
            while flight.may_go(before):
                flight.go()
                moved = True
                if alive is not None:
                    alive()
            before = flight
        while self._flights and self._flights[0].landed:
            self._flights.popleft()
        return moved


def fly(flights: Iterable[Hops[None]]) -> None:
    """Take all flights to their end, without a thread."""
    waiting, under_way, still = iter(flights), Flights(), 0
    more: Hops[None] | None = next(waiting, None)
    while more is not None or under_way:
        while more is not None and len(under_way) < MOST:
            under_way.add(more)
            more = next(waiting, None)
        still = 0 if under_way.look() else still + 1
        WAITING.after(still)


class Stream:
    """A thread for Flights. What a flight raises, `finish` raises."""

    def __init__(self, landed: Callable[[], None], alive: Callable[[], None]) -> None:
        """landed: called in the thread when all flights of a step have landed. alive: called at
        each hop, for a watchdog."""
        self._landed, self._alive = landed, alive
        self._orders: queue.SimpleQueue[Hops[None] | None] = queue.SimpleQueue()
        self._flights = Flights()
        self._hurry = self._closed = False
        self._idle = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="exchange", daemon=True)
        self._thread.start()

    def send(self, hops: Hops[None]) -> None:
        """Start a flight after those that were sent before; returns at once."""
        self._orders.put(hops)

    def finish(self) -> None:
        """Return when all flights have landed. Raises what one of them raised; nothing may be sent
        afterwards."""
        self._hurry = True
        self._orders.put(None)
        self._idle.wait()
        self._hurry = False
        if self._error is not None:
            raise self._error
        self._idle.clear()

    def close(self) -> None:
        """End the thread. One that is stuck in a flight is left alone: it ends with the process."""
        self._closed = True
        self._orders.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._fly()
            except BaseException as error:  # the main thread says it, and ends the job
                self._error = error
            self._idle.set()
            if self._error is not None:
                return

    def _fly(self) -> None:
        """The flights of one step, until `finish` has been asked for and all have landed."""
        flights, last, still = self._flights, False, 0
        while True:
            while not last and len(flights) < MOST:
                try:
                    order = self._orders.get(block=not flights)
                except queue.Empty:
                    break
                last = order is None
                if order is not None:
                    flights.add(order)
            if not flights:
                break
            still = 0 if flights.look(self._alive) else still + 1
            (WAITING if self._hurry else COMPUTING).after(still)
        self._landed()


class _Flight:
    """One bucket's hops."""

    def __init__(self, hops: Hops[None]) -> None:
        self._hops = hops
        self._pending: Pending | None = None
        self._begun = 0
        self.landed = False

    def may_go(self, before: _Flight | None) -> bool:
        """Whether what it waits for is done, and the flight before it is further."""
        if self.landed or not (before is None or before.landed or before._begun > self._begun):
            return False
        return self._pending is None or self._pending.done()

    def go(self) -> None:
        """Begin the next hop."""
        try:
            self._pending = next(self._hops)
            self._begun += 1
        except StopIteration:
            self.landed = True
