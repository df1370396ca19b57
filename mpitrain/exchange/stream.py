"""Average and spread several buckets at once, in the same order on all ranks.

A thread can do it, while the backward pass goes on.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable

from mpitrain.mpi.hops import Hops, Pending
from mpitrain.mpi.naps import Naps

BUCKETS_AT_ONCE = 4
"""One that sends its parts, one its means, one its deltas, and one that begins."""
COMPUTING = Naps(yields=0, shortest=1e-4, longest=1e-3)
"""Between two looks while the backward pass computes: looking takes time from the computation."""
BESIDE_GPU = Naps(yields=0, shortest=2e-5, longest=1e-4, steady=1000)
"""The same, where a device with memory of its own computes: looking takes time from the main thread
alone, which keeps that busy."""
WAITING = Naps(yields=3000, shortest=1e-5, longest=5e-4, steady=700)
"""Between two looks when the main thread only waits for the exchange. A barrier within a host takes
0.01 ms. Open MPI needs a thousand looks and more for one collective: with naps after 300 a step of
LeNet in float32 waited 112 ms, and 2 ms so; MPICH does not care."""


class Pipeline:
    """Advances the hops of several buckets, each as far as it can go.

    No bucket overtakes another: a bucket starts its k-th hop only after the last unfinished bucket
    before it has started its own k-th hop. So all ranks start the same operations in the same
    order on each communicator, whatever arrives first.
    """

    def __init__(self) -> None:
        self._tasks: deque[_Task] = deque()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, hops: Hops[None]) -> None:
        """Append a bucket, whose first hop may start now."""
        self._tasks.append(_Task(hops))

    def advance(self, alive: Callable[[], None] | None = None) -> bool:
        """Start all hops that can start, without waiting; return whether there were any.

        alive: called at each hop.
        """
        advanced, before = False, None
        for task in self._tasks:
            while task.may_advance(before):
                task.advance()
                advanced = True
                if alive is not None:
                    alive()
            if not task.finished:
                before = task
        while self._tasks and self._tasks[0].finished:
            self._tasks.popleft()
        return advanced


def run_all(buckets: Iterable[Hops[None]]) -> None:
    """Take all buckets to their end in this thread, several at once."""
    waiting, pipeline, idle_looks = iter(buckets), Pipeline(), 0
    following: Hops[None] | None = next(waiting, None)
    while following is not None or pipeline:
        while following is not None and len(pipeline) < BUCKETS_AT_ONCE:
            pipeline.add(following)
            following = next(waiting, None)
        idle_looks = 0 if pipeline.advance() else idle_looks + 1
        WAITING.after(idle_looks)


class Stream:
    """A thread that runs a Pipeline. An error in it is raised by `finish`."""

    def __init__(
        self,
        finished: Callable[[], None],
        alive: Callable[[], None],
        computing: Naps = COMPUTING,
    ) -> None:
        """finished: called in the thread when all buckets of a step have reached their end.

        alive: called in the thread at each hop, for a watchdog. computing: between two looks before
        `finish`.
        """
        self._finished, self._alive, self._computing = finished, alive, computing
        self._orders: queue.SimpleQueue[Hops[None] | None] = queue.SimpleQueue()
        """Buckets to start; None ends a step."""
        self._pipeline = Pipeline()
        self._main_waits = self._closed = False
        self._idle = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="exchange", daemon=True)
        self._thread.start()

    def send(self, hops: Hops[None]) -> None:
        """Start a bucket after those that were sent before. Returns at once."""
        self._orders.put(hops)

    def finish(self) -> None:
        """Wait until all buckets have reached their end.

        Raises what one of them raised; nothing may be sent afterwards.
        """
        self._main_waits = True
        self._orders.put(None)
        self._idle.wait()
        self._main_waits = False
        if self._error is not None:
            raise self._error
        self._idle.clear()

    def close(self) -> None:
        """End the thread. If it hangs, it is left alone, and ends with the process."""
        self._closed = True
        self._orders.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._run_step()
            except BaseException as error:  # the main thread reports it, and ends the job
                self._error = error
            self._idle.set()
            if self._error is not None:
                return

    def _run_step(self) -> None:
        """Run the buckets of one step, until `finish` was called and all have reached their end."""
        pipeline, is_last, idle_looks = self._pipeline, False, 0
        while True:
            while not is_last and len(pipeline) < BUCKETS_AT_ONCE:
                try:
                    order = self._orders.get(block=not pipeline)
                except queue.Empty:
                    break
                is_last = order is None
                if order is not None:
                    pipeline.add(order)
            if not pipeline:
                break
            idle_looks = 0 if pipeline.advance(self._alive) else idle_looks + 1
            (WAITING if self._main_waits else self._computing).after(idle_looks)
        self._finished()


class _Task:
    """The hops of one bucket."""

    def __init__(self, hops: Hops[None]) -> None:
        self._hops = hops
        self._pending: Pending | None = None
        self._started = 0
        self.finished = False

    def may_advance(self, before: _Task | None) -> bool:
        """Whether the last hop is done, and the bucket before this one is further."""
        is_behind = before is None or before._started > self._started
        if self.finished or not is_behind:
            return False
        return self._pending is None or self._pending.done()

    def advance(self) -> None:
        """Start the next hop."""
        try:
            self._pending = next(self._hops)
            self._started += 1
        except StopIteration:
            self.finished = True
