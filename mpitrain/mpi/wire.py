"""Carry bytes and arrays between ranks; the only importer of mpi4py.

Rank and size are integers handed out here. Everything travels through upper-case buffer calls: small facts as JSON, nothing pickled.
Duplicates of the communicator keep apart what happens at the same time: facts, the feed, and each lane of the exchange. What the
exchange does may be called from a thread of its own, while the main thread calls the rest.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.job.errors import MpitrainError, RunError, UserError, agreed
from mpitrain.mpi.blocking import Floats, Way, by_doubling, by_library, by_shards, ends
from mpitrain.mpi.hops import Hops, complete
from mpitrain.mpi.launch import check_launch, outlives_ranks

Json: TypeAlias = Any
"""What JSON can say: None, bool, int, float, str, list, dict."""
Bytes: TypeAlias = NDArray[np.uint8]
Communicator: TypeAlias = MPI.Intracomm
T = TypeVar("T")

LIMIT = 1 << 28
"""Elements in one MPI call at most: counts are C ints, and some libraries turn them into bytes in an int."""
AT_ONCE = 30
"""Looks at a request without a nap between, only giving the core away: a short message is there in less than the shortest nap (0.06 ms)."""
FIRST_NAP, LONGEST_NAP, PATIENCE = 1e-5, 1e-3, 0.05
"""Seconds between two looks at a request: the first for as long as PATIENCE says, then longer and longer ones. A waiting MPI call spins,
which takes a core from whoever computes. But Open MPI moves a collective only while somebody looks, a piece a look: with naps of
0.1 to 1 ms a step of LeNet took ten times as long."""


SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory; containers often have little of it."""
ROOM = 0.7
"""Share of what is free there that a window may take."""
LANES = 5
"""Communicators of the exchange: parts, means and deltas of coded buckets, and two for float32 (also for all else that waits)."""

SHORT = 1 << 12
"""Bytes of a vector whose mean is rather made in few messages than in short ones."""

_connected: Wire | None = None


class Lost(RunError):
    """A message failed where MPI tells the others of a rank's death: `Wire.among_the_living` may go on without it."""


FAILURES = (Lost, MPI.Exception)
"""What is raised where MPI tells of a death: by what waits for messages, and by what would start some."""


def _failed(wire: Wire, error: MPI.Exception) -> RunError:
    """What to raise for an error of MPI's. One that outlives ranks gives all sorts of errors then, also numbers that are none."""
    kind = Lost if outlives_ranks(os.environ) else RunError
    return kind(f"rank {wire.numbers[wire.rank]}: a message failed: {error}")


class Wire:
    """One rank's end of an MPI job. Every method is called by all ranks in the same order, unless it says otherwise."""

    def __init__(self, communicator: MPI.Intracomm, delay: float = 0.0, host: int | None = None) -> None:
        """delay: up to so many seconds of sleep, drawn from a generator seeded by the rank, before each operation. host: a number that
        ranks share which are to count as those of one host, where they all are on one. Both are for tests."""
        self._facts = communicator.Dup()
        self._lanes = [communicator.Dup() for _ in range(LANES)]
        self._feed = communicator.Dup()
        self.rank: int = communicator.rank
        self.size: int = communicator.size
        self.numbers: Sequence[int] = range(self.size)
        """What people are told of this wire's ranks: their numbers when the job began. `among_the_living` numbers ranks anew."""
        self.began = self.size
        """Ranks when the job began."""
        self._number = host
        own: Any = (
            communicator.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
            if host is None
            else communicator.Split(host, self.rank)
        )
        self._host = own
        self._window: MPI.Win | None = None
        self._shared = 0
        self.local_rank: int = own.rank
        self.local_size: int = own.size
        first = np.array([self.rank], np.int64)
        own.Bcast(first, root=0)
        self._first = int(first[0])
        self.host = f"{os.uname().nodename}/{self._first}"
        """Name of the shared memory this rank sees: several virtual hosts may share a node name."""
        self.hosts = int(self.sum(np.array([self.local_rank == 0], np.float64))[0])
        """Memories that ranks share: one on a single host."""
        self.one_host = self.hosts == 1
        self._exchanged = self._fed = 0  # each counted by one thread at a time
        self.delay = delay
        self._random = random.Random(self.rank)
        self._share_of_one = np.float32(1 / self.size)
        self._started: list[Part] = []
        self.tools: Any = None
        """What `allreduce` has made for this wire, and keeps with it."""
        self._before: Wire | None = None
        self._above: Wire | None = None
        self._within: Wire | None = None
        self._between: Wire | None = None

    @property
    def bytes_sent(self) -> int:
        """Bytes this rank has handed to MPI, or laid into shared memory, for gradients, weights and images; for MPI's collectives the
        least they could be."""
        return self._exchanged + self._fed + sum(part.bytes_sent for part in self._parts)

    @property
    def bereaved(self) -> bool:
        """Whether ranks have died since the job began."""
        return self._before is not None

    @property
    def threads(self) -> bool:
        """Whether MPI lets several threads in at once, as most do."""
        return bool(MPI.Query_thread() == MPI.THREAD_MULTIPLE)

    @property
    def outlives_ranks(self) -> bool:
        """Whether the MPI goes on when a rank dies, and tells the others."""
        return outlives_ranks(os.environ)

    @property
    def name(self) -> str:
        """Which rank this is, in words, with its host where there are several."""
        where = "" if self.one_host else f" on {self.host.rpartition('/')[0]}"
        return f"rank {self.numbers[self.rank]} of {self.began}{where}"

    def __repr__(self) -> str:
        return f"Wire(rank {self.rank} of {self.size})"

    @property
    def library(self) -> str:
        """The MPI library's version and path, for the header of a run."""
        return library()

    def layers(self) -> tuple[Wire, Wire | None]:
        """A wire of this host's ranks, and one of the first rank of each host (None on the others). Collective; made once."""
        if self._within is None:
            leads = self.local_rank == 0
            within: Any = self._facts.Split(self._first, self.rank)
            between: Any = self._facts.Split(0 if leads else MPI.UNDEFINED, self.rank)
            self._within = self._part(within)
            self._between = self._part(between) if leads else None
            within.Free()
            if leads:
                between.Free()
        return self._within, self._between

    def _part(self, communicator: MPI.Intracomm) -> Wire:
        """A wire of some of the ranks."""
        made = Wire(communicator)
        made.numbers, made._above = made.gather_facts(self.numbers[self.rank]), self
        return made

    @property
    def _parts(self) -> list[Wire]:
        return [part for part in (self._within, self._between) if part is not None]

    # Facts: small, for the main thread

    def from_root(self, make: Callable[[], Json]) -> Json:
        """What `make` returns on rank 0, as JSON, on every rank; what it raises there is raised by every rank alike.

        Raises UserError and RunError as they are, any other exception as a RunError that names it.
        """
        said: dict[str, Json] = {}
        cause: Exception | None = None
        if self.rank == 0:
            try:
                said = {"result": json.loads(json.dumps(make()))}
            except MpitrainError as error:
                cause = error
                said = {"error": str(error), "user": isinstance(error, UserError)}
            except Exception as error:
                cause = error
                said = {"error": f"rank 0: {type(error).__name__}: {error}", "user": False}
        said = json.loads(self._broadcast_bytes(json.dumps(said).encode()))
        if "error" in said:
            raise agreed((UserError if said["user"] else RunError)(said["error"])) from cause
        return said["result"]

    def together(self, make: Callable[[], T]) -> T:
        """Run `make` on every rank. If it raises MpitrainError on any, all raise the first one's words (with its rank if others had none)."""
        mine: list[T] = []
        failed: Json = None
        try:
            mine.append(make())
        except MpitrainError as error:
            failed = [str(error), isinstance(error, UserError)]
        wrong = [(rank, said) for rank, said in enumerate(self.gather_facts(failed)) if said]
        if wrong:
            rank, (words, user) = wrong[0]
            where = "" if len(wrong) == self.size else f"rank {rank}: "
            raise agreed((UserError if user else RunError)(where + words))
        return mine[0]

    def leaders_first(self, make: Callable[[], T]) -> T:
        """`together`, on one rank of each host before the others: what it leaves in a cache, they need not make."""
        leads = self.local_rank == 0
        made = self.together(lambda: make() if leads else None)
        late = self.together(lambda: None if leads else make())
        return made if leads else late  # type: ignore[return-value]  # one of them is a T

    def gather_facts(self, fact: Json) -> list[Json]:
        """Every rank's fact, in rank order, on every rank."""
        self._dawdle()
        mine = np.frombuffer(json.dumps(fact).encode(), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self._wait([self._facts.Iallgather(np.array([mine.size], np.int64), sizes)])
        everything = np.empty(int(sizes.sum()), np.uint8)
        self._wait([self._facts.Iallgatherv(mine, [everything, sizes.tolist()])])
        ends = np.cumsum(sizes)
        return [
            json.loads(everything[end - size : end].tobytes()) for end, size in zip(ends, sizes, strict=True)
        ]

    def neighbours(self, fact: Json) -> list[Json]:
        """The facts of the ranks that share this one's host, in rank order. Collective."""
        return [theirs for host, theirs in self.gather_facts([self.host, fact]) if host == self.host]

    def sum(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over ranks of a short float64 vector, added in rank order: the same bytes on every rank."""
        total = np.zeros(vector.shape)
        for part in self.table(vector):
            total += part
        return total

    def table(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every rank's short float64 vector, (size, n), on every rank."""
        mine = np.ascontiguousarray(vector, np.float64)
        if self.size == 1:
            return mine[None]
        everything = np.empty((self.size, *mine.shape))
        self._wait([self._facts.Iallgather(mine, everything)])
        return everything

    def alike(self, facts: NDArray[np.int64]) -> bool:
        """Whether all ranks have the same few numbers. Without sleep, for one who waits for nothing else."""
        both = np.concatenate((facts, -facts))
        try:
            self._facts.Allreduce(MPI.IN_PLACE, both, op=MPI.MAX)
        except MPI.Exception as error:
            raise _failed(self, error) from error
        return bool((both[: facts.size] == -both[facts.size :]).all())

    def broadcast(self, array: NDArray[Any]) -> None:
        """Overwrite an array on every rank with rank 0's. Same shape and type everywhere, C-ordered."""
        self.start_broadcast(array).wait()

    def barrier(self) -> None:
        """Return when every rank has come here. Sleeps while it waits."""
        self._wait([self._facts.Ibarrier()])

    def line_up(self) -> None:
        """`barrier`, without sleep: all go on at about one moment, as what is to be timed needs it."""
        self._facts.Barrier()

    def _broadcast_bytes(self, content: bytes) -> bytes:
        self._dawdle()
        size = np.array([len(content)], np.int64)
        self._wait([self._facts.Ibcast(size, root=0)])
        buffer = (
            np.frombuffer(content, np.uint8).copy() if self.rank == 0 else np.empty(int(size[0]), np.uint8)
        )
        self._wait([self._facts.Ibcast(buffer, root=0)])
        return buffer.tobytes()

    # The exchange: each operation starts at once and is pending afterwards. On one lane all ranks start the same ones in one order

    def start_broadcast(self, array: NDArray[Any], lane: int = 0) -> Messages:
        """Overwrite an array on every rank with rank 0's. Same shape and type everywhere, C-ordered."""
        self._dawdle()
        if self.rank == 0 and self.size > 1:
            self._exchanged += array.nbytes
        return Messages(
            self, [self._lanes[lane].Ibcast(piece, root=0) for piece in _pieces(_flat(array).view(np.uint8))]
        )

    def start_star(self, array: NDArray[Any], lane: int = 0) -> Messages:
        """The same as `start_broadcast`, but rank 0 sends to each of the others by itself: all through one link, as in the paper."""
        self._dawdle()
        flat = _flat(array).view(np.uint8)
        if self.rank:
            return Messages(self, [self._lanes[lane].Irecv(piece, source=0) for piece in _pieces(flat)])
        peers = range(1, self.size)
        self._exchanged += array.nbytes * len(peers)
        return Messages(
            self, [self._lanes[lane].Isend(piece, dest=peer) for peer in peers for piece in _pieces(flat)]
        )

    def start_reduce(self, values: NDArray[np.float32], lane: int = 0) -> Messages:
        """Add up a vector over ranks; rank 0's becomes the sum, the others' stay as they are."""
        self._dawdle()
        requests = []
        for piece in _pieces(_flat(values)):
            mine, total = (MPI.IN_PLACE, piece) if self.rank == 0 else (piece, None)
            requests.append(self._lanes[lane].Ireduce(mine, total, op=MPI.SUM, root=0))
        if self.rank:
            self._exchanged += values.nbytes
        return Messages(self, requests)

    def allreduce_hops(self, values: NDArray[np.float32], lane: int = 0) -> Hops[None]:
        """Turn a vector into its sum over ranks, with the same bytes on every rank.

        MPI_Allreduce does not promise that (MPICH 6538, Open MPI 11721); a sum made in one place and copied does.
        """
        for piece in _pieces(_flat(values)):
            self._dawdle()
            counts = [stop - start for start, stop in itertools.pairwise(ends(piece.size, self.size))]
            mine = np.empty(counts[self.rank], np.float32)
            yield Messages(self, [self._lanes[lane].Ireduce_scatter(piece, mine, counts, op=MPI.SUM)])
            yield Messages(self, [self._lanes[lane + 1].Iallgatherv(mine, [piece, counts])])
            self._exchanged += (piece.nbytes - mine.nbytes) + mine.nbytes * (self.size - 1)

    def start_all_to_all(
        self, outgoing: Sequence[Bytes | None], incoming: Sequence[Bytes | None], lane: int = 0
    ) -> Messages:
        """Send outgoing[r] to each rank r and fill incoming[r] from it. Both ends know the sizes; None or empty: no message.

        Peers are staggered (rank + 1, rank + 2, ...), so that no rank is everyone's first. Entries for this rank are passed over.
        When done it raises RunError naming the sender if a message of another size came.
        """
        self._dawdle()
        peers = [(self.rank + hop) % self.size for hop in range(1, self.size)]
        sources = [peer for peer in reversed(peers) if _some(incoming[peer])]
        requests = [self._lanes[lane].Irecv(incoming[peer], source=peer) for peer in sources]
        for peer in peers:
            message = outgoing[peer]
            if message is not None and message.size:
                requests.append(self._lanes[lane].Isend(message, dest=peer))
                self._exchanged += message.nbytes
        expected = [(peer, message.nbytes) for peer in sources if (message := incoming[peer]) is not None]
        return Messages(self, requests, expected)

    def start_barrier(self, lane: int, laid: int = 0) -> Messages:
        """Done when every rank has started it; what a rank wrote to shared memory before, all then see. laid: bytes of it, to count."""
        self._dawdle()
        self._exchanged += laid
        if self._window is not None:
            self._window.Sync()
        return Messages(self, [self._lanes[lane].Ibarrier()])

    def share(self, count: int) -> list[NDArray[np.float32]]:
        """Memory that all ranks of a host see: a vector of so many floats of each rank, in rank order.

        It is always the same memory, until more is asked for: vectors from before must not be touched then. Raises UserError on every
        rank if they are on several hosts, or the host has too little shared memory.
        """
        if self._window is None or count > self._shared:
            self.together(lambda: self._check_room(4 * count))
            self._unshare()
            self._window, self._shared = MPI.Win.Allocate_shared(4 * count, 4, comm=self._host), count
            self._window.Lock_all(MPI.MODE_NOCHECK)
        self.barrier()  # nobody reads what was there before
        memories: list[Any] = [self._window.Shared_query(rank)[0] for rank in range(self.size)]
        return [np.frombuffer(memory, np.float32, count) for memory in memories]

    def fence(self, laid: int = 0) -> None:
        """What this rank wrote to shared memory before, others see before what it writes afterwards; and it sees what they had written.
        laid: bytes of it, to count. Not collective."""
        self._dawdle()
        self._exchanged += laid
        if self._window is not None:
            self._window.Sync()

    def notice(self) -> None:
        """Let MPI move what is under way, and raise if it knows that a rank is gone. Not collective."""
        try:
            self._facts.Iprobe()
        except MPI.Exception as error:
            raise _failed(self, error) from error

    def has_room(self, count: int) -> bool:
        """Whether every rank's host has the shared memory that `share` would take. Collective."""
        if self._window is not None and count <= self._shared:
            return True
        try:
            self.together(lambda: self._check_room(4 * count))
        except UserError:
            return False
        return True

    def _check_room(self, nbytes: int) -> None:
        """Shared memory that is promised and not there ends a process without a word, when it is first written to."""
        if not self.one_host:
            raise UserError(
                f"--exchange window: the {self.size} ranks are on several hosts; dynamic8 shares memory within each"
            )
        if SHARED.exists():
            facts = os.statvfs(SHARED)
            room, wanted = facts.f_bavail * facts.f_frsize, nbytes * self.size
            if wanted > ROOM * room:
                raise UserError(
                    f"--exchange window: {wanted >> 20} MiB of shared memory wanted, {SHARED} has {room >> 20} MiB"
                )

    def _unshare(self) -> None:
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None

    def reduce_to_root(self, values: NDArray[np.float32]) -> None:
        """`start_reduce`, and wait."""
        self.start_reduce(values).wait()

    def allreduce(self, values: NDArray[np.float32]) -> None:
        """`allreduce_hops`, one after the other."""
        complete(self.allreduce_hops(values))

    def mean(self, source: Floats, mean: Floats, way: Way | None = None) -> None:
        """The float32 mean over ranks of flat C-ordered arrays, one or two that share no memory, by MPI's blocking calls.

        For the main thread, with nothing to overlap with. way: one of `blocking`; without it one that gives all ranks the same bytes.
        """
        self._dawdle()
        size = self.size
        if size == 1:
            np.copyto(mean, source)
            return
        if way is None:
            way = by_doubling if source.nbytes <= SHORT else by_library if size == 2 else by_shards
        try:
            if source.size <= LIMIT:
                way(self._facts, source, mean, self._share_of_one)
            else:
                for piece, part in zip(_pieces(source), _pieces(mean), strict=True):
                    way(self._facts, part if source is mean else piece, part, self._share_of_one)
        except MPI.Exception as error:
            raise _failed(self, error) from error
        self._exchanged += 2 * source.nbytes * (size - 1) // size

    def all_to_all(self, outgoing: Sequence[Bytes | None], incoming: Sequence[Bytes | None]) -> None:
        """`start_all_to_all`, and wait."""
        self.start_all_to_all(outgoing, incoming).wait()

    def gather_to_root(self, message: Bytes | None, incoming: Sequence[Bytes | None]) -> None:
        """Send a message to rank 0, which fills incoming[r] from each rank r. Rank 0 sends nothing; others' `incoming` is not read."""
        nothing: list[Bytes | None] = [None] * self.size
        if self.rank == 0:
            self.all_to_all(nothing, incoming)
        else:
            self.all_to_all([message, *nothing[1:]], nothing)

    def send(self, array: NDArray[Any], to: int) -> None:
        """A C-ordered array to one rank, which meanwhile calls `receive` with one of its size and type. Not collective."""
        self._wait([self._lanes[0].Isend(piece, dest=to) for piece in _pieces(_flat(array))])

    def receive(self, array: NDArray[Any], source: int) -> None:
        """Fill a C-ordered array with what `source` sends. Not collective."""
        self._wait([self._lanes[0].Irecv(piece, source=source) for piece in _pieces(_flat(array))])

    # The feed: rank 0's images to the others

    def scatter_parts(
        self,
        images: NDArray[Any] | None,
        labels: NDArray[np.int32] | None,
        parts: Sequence[slice],
        shape: tuple[int, ...],
        dtype: Any,
    ) -> Part:
        """Start to hand out a batch, whose part for rank r is parts[r]; returns at once, and `Part.wait` has this rank's.

        images (n, *shape) of `dtype` and labels int32 (n,) are given on rank 0 only and must not be changed until its `wait` returns,
        which completes the sending too; the others pass None. Rank 0 sends nothing to itself: its part is a view.
        """
        mine = parts[self.rank]
        if self.rank == 0:
            if images is None or labels is None:
                raise ValueError("rank 0 hands out images and labels, got None")
            images, labels = np.ascontiguousarray(images, dtype), np.ascontiguousarray(labels, np.int32)
            requests = []
            for peer in range(1, self.size):
                for array in (images[parts[peer]], labels[parts[peer]]):
                    requests += [self._feed.Isend(piece, dest=peer) for piece in _pieces(_flat(array))]
                    self._fed += array.nbytes
            return self._start(images[mine], labels[mine], requests)
        count = mine.stop - mine.start
        images, labels = np.empty((count, *shape), dtype), np.empty(count, np.int32)
        requests = [
            self._feed.Irecv(piece, source=0) for array in (images, labels) for piece in _pieces(_flat(array))
        ]
        return self._start(images, labels, requests)

    def _start(self, images: NDArray[Any], labels: NDArray[np.int32], requests: list[MPI.Request]) -> Part:
        part = Part(self, images, labels, requests)
        self._started.append(part)
        return part

    def close(self) -> None:
        """Finish what was started and give the communicators back. Nothing may be called afterwards."""
        while self._started:
            self._started[0].wait()
        self._unshare()
        for part in self._parts:
            part.close()
        for communicator in self._communicators:
            communicator.Free()

    @property
    def _communicators(self) -> tuple[Communicator, ...]:
        return (self._facts, *self._lanes, self._feed, self._host)

    def give_up(self) -> None:
        """End all that is under way, on every rank that is alive: what waits for messages raises Lost. Any one rank may call it."""
        for part in self._parts:
            part.give_up()
        for communicator in self._communicators:
            communicator.Revoke()

    def among_the_living(self) -> Wire:
        """A wire over those ranks of this one that are alive, in their old order, after `give_up`; for MPIs that outlive ranks."""
        global _connected
        while True:
            living: Any = self._facts.Shrink()
            made: Wire | None = None
            try:
                made = Wire(living, self.delay, self._number)
            except FAILURES:  # one more has died
                living.Revoke()
            try:  # once on every rank and in every round: Agree only meets Agree
                well = living.Agree(int(made is not None))
            except MPI.Exception:
                well = 0
            if made is not None and well:
                break
        places = living.group.Translate_ranks(None, self._facts.group)
        made.numbers, made.began = [self.numbers[place] for place in places], self.began
        made._fed = self._fed
        made._exchanged = self.bytes_sent - self._fed
        made._before = self  # whose buffers MPI may still write to
        if _connected is self:
            _connected = made
        return made

    def abort(self, code: int) -> None:
        """End every rank of the job at once with an exit code. Any one rank may call it; it does not return."""
        abort(code)

    def _wait(self, requests: list[MPI.Request]) -> list[MPI.Status]:
        """Look, sleep, look again, until all requests are done."""
        statuses = [MPI.Status() for _ in requests]
        looks, nap, patient = 0, FIRST_NAP, time.monotonic() + PATIENCE
        try:
            while not MPI.Request.Testall(requests, statuses):
                looks += 1
                time.sleep(nap if looks > AT_ONCE else 0)
                if time.monotonic() > patient:
                    nap = min(2 * nap, LONGEST_NAP)
        except MPI.Exception as error:
            raise _failed(self, error) from error
        return statuses

    def _dawdle(self) -> None:
        delay = (self._above or self).delay
        if delay:
            time.sleep(self._random.uniform(0, delay))


class Messages:
    """Requests of one operation of the exchange."""

    def __init__(
        self, wire: Wire, requests: Sequence[MPI.Request], expected: Sequence[tuple[int, int]] = ()
    ) -> None:
        """expected: source and bytes of the messages that the first requests receive."""
        self._wire, self._requests, self._expected = wire, list(requests), expected
        self._statuses = [MPI.Status() for _ in self._requests]

    def done(self) -> bool:
        """Whether all have come. Raises RunError naming the sender if a message of another size came."""
        try:
            if not MPI.Request.Testall(self._requests, self._statuses):
                return False
        except MPI.Exception as error:
            raise _failed(self._wire, error) from error
        self._check()
        return True

    def wait(self) -> None:
        """Return when all have come; sleeps between two looks."""
        self._statuses = self._wire._wait(self._requests)
        self._check()

    def _check(self) -> None:
        for (source, wanted), status in zip(self._expected, self._statuses, strict=False):
            came = status.Get_count(MPI.BYTE)
            if came != wanted:
                sender = self._wire.numbers[source]
                raise RunError(f"message from rank {sender}: expected {wanted} bytes, got {came}")


@dataclass
class Part:
    """A rank's part of a batch that may still be on its way."""

    _wire: Wire
    _images: NDArray[Any]
    _labels: NDArray[np.int32]
    _requests: list[MPI.Request]

    def wait(self) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Images (k, C, H, W) and labels int32 (k,), once they are here; on rank 0 once all others have theirs or soon will.

        Rank 0 waits as well: a send that nobody completes moves only while rank 0 is in MPI for something else.
        """
        self._wire._wait(self._requests)
        self._requests = []
        self._wire._started = [part for part in self._wire._started if part is not self]
        return self._images, self._labels


def connect(delay: float = 0.0) -> Wire:
    """This rank's wire to all ranks of the job. Raises UserError if the launcher started more ranks than MPI sees."""
    global _connected
    if _connected is None:
        check_launch(MPI.COMM_WORLD.size, os.environ, library())
        _connected = Wire(MPI.COMM_WORLD, delay)
    return _connected


def connected() -> Wire | None:
    """The wire of this process, if it has joined its job."""
    return _connected


_KEY = MPI.Comm.Create_keyval()
_latest: tuple[MPI.Intracomm, Wire] | None = None
"""What `over` gave out last: asking MPI takes a microsecond, a thirtieth of what a short vector takes."""


def over(communicator: MPI.Intracomm, host: int | None = None) -> Wire:
    """The wire over a communicator of the caller's; made once (by all its ranks) and kept with it. host: as Wire takes it."""
    global _latest
    if _latest is not None and _latest[0] is communicator:
        return _latest[1]
    known = communicator.Get_attr(_KEY)
    wire = known if isinstance(known, Wire) else Wire(communicator, host=host)
    if wire is not known:
        communicator.Set_attr(_KEY, wire)
    _latest = communicator, wire
    return wire


def abort(code: int) -> None:
    """End every rank of the job at once with an exit code, with or without a Wire; it does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(code)


def finalize() -> None:
    """Leave MPI, as the interpreter does at its end; for a process that ends without that."""
    if not MPI.Is_finalized():
        MPI.Finalize()


def library() -> str:
    """The MPI library's version and path."""
    version = MPI.Get_library_version().partition("\0")[0]
    first = " ".join(version.splitlines()[0].replace("Version:", "").split()).partition(", package")[0]
    return f"{first} ({_library_path() or 'path unknown'})"


def _library_path() -> str | None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    for line in maps.read_text().splitlines():
        path = line.partition("/")[2]
        if path.rpartition("/")[2].startswith(("libmpi.so", "libmpich.so", "libmpi_abi.so")):
            return "/" + path
    return None


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    if not array.flags.c_contiguous:
        raise ValueError(f"an array on the wire must be C-ordered, got strides {array.strides}")
    return array.reshape(-1)


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, array.size, LIMIT):
        yield array[start : start + LIMIT]


def _some(message: Bytes | None) -> bool:
    return message is not None and message.size > 0
