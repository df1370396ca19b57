"""Exchange small facts: what rank 0 found, what each rank has to report, what failed.

Every method is collective, and for the main thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.job.errors import MpitrainError, RunError, UserError, agreed
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.wait import failure, wait_for

Json: TypeAlias = Any
"""What JSON can express: None, bool, int, float, str, list, dict."""
T = TypeVar("T")


class Agree:
    """Collective calls for small facts, which are sent as JSON; nothing is pickled."""

    def __init__(self, ranks: Ranks, communicator: MPI.Intracomm) -> None:
        self.ranks, self._communicator = ranks, communicator

    def from_root(self, make: Callable[[], Json]) -> Json:
        """Run `make` on rank 0; every rank returns its result, which JSON must be able to express.

        If it raises UserError or RunError, every rank raises the same; any other exception becomes
        a RunError that names it.
        """
        answer: dict[str, Json] = {}
        cause: Exception | None = None
        if self.ranks.rank == 0:
            try:
                answer = {"result": json.loads(json.dumps(make()))}
            except MpitrainError as error:
                cause = error
                answer = {"error": str(error), "user": isinstance(error, UserError)}
            except Exception as error:
                cause = error
                answer = {"error": f"rank 0: {type(error).__name__}: {error}", "user": False}
        answer = json.loads(self._broadcast(json.dumps(answer).encode()))
        if "error" in answer:
            raise agreed((UserError if answer["user"] else RunError)(answer["error"])) from cause
        return answer["result"]

    def together(self, make: Callable[[], T]) -> T:
        """Run `make` on every rank. If any raise MpitrainError, every rank raises the first one's.

        The message begins with the number of the rank, unless all ranks raised.
        """
        mine: list[T] = []
        failed: Json = None
        try:
            mine.append(make())
        except MpitrainError as error:
            failed = [str(error), isinstance(error, UserError)]
        wrong = [(rank, found) for rank, found in enumerate(self.gather_facts(failed)) if found]
        if wrong:
            rank, (message, user) = wrong[0]
            where = "" if len(wrong) == self.ranks.size else f"rank {rank}: "
            raise agreed((UserError if user else RunError)(where + message))
        return mine[0]

    def leaders_first(self, make: Callable[[], T]) -> T:
        """As `together`, but one rank of each host runs first and fills the host's caches."""
        leads = self.ranks.local_rank == 0
        made = self.together(lambda: make() if leads else None)
        late = self.together(lambda: None if leads else make())
        return made if leads else late  # type: ignore[return-value]  # one of them is a T

    def gather_facts(self, fact: Json) -> list[Json]:
        """The facts of all ranks, in rank order, on every rank."""
        self.ranks.delay.inject()
        communicator, mine = self._communicator, np.frombuffer(json.dumps(fact).encode(), np.uint8)
        sizes = np.empty(self.ranks.size, np.int64)
        wait_for(self.ranks, [communicator.Iallgather(np.array([mine.size], np.int64), sizes)])
        everything = np.empty(int(sizes.sum()), np.uint8)
        wait_for(self.ranks, [communicator.Iallgatherv(mine, [everything, sizes.tolist()])])
        pieces = np.split(everything, np.cumsum(sizes)[:-1])
        return [json.loads(piece.tobytes()) for piece in pieces]

    def neighbours(self, fact: Json) -> list[Json]:
        """The facts of the ranks that share this one's host, in rank order."""
        host = self.ranks.host
        return [theirs for where, theirs in self.gather_facts([host, fact]) if where == host]

    def sum(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over ranks of a short float64 vector, in rank order: the same bytes on all."""
        total = np.zeros(vector.shape)
        for part in self.table(vector):
            total += part
        return total

    def table(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every rank's short float64 vector (n,), as (size, n), on every rank."""
        mine = np.ascontiguousarray(vector, np.float64)
        if self.ranks.size == 1:
            return mine[None]
        everything = np.empty((self.ranks.size, *mine.shape))
        wait_for(self.ranks, [self._communicator.Iallgather(mine, everything)])
        return everything

    def alike(self, facts: NDArray[np.int64]) -> bool:
        """Whether all ranks pass the same few numbers. Spins while it waits."""
        both = np.concatenate((facts, -facts))
        try:
            self._communicator.Allreduce(MPI.IN_PLACE, both, op=MPI.MAX)
        except MPI.Exception as error:
            raise failure(self.ranks, error) from error
        return bool((both[: facts.size] == -both[facts.size :]).all())

    def barrier(self) -> None:
        """Return when every rank has called it. Sleeps while it waits."""
        wait_for(self.ranks, [self._communicator.Ibarrier()])

    def line_up(self) -> None:
        """As `barrier`, but spins: for timing, all ranks return at nearly the same moment."""
        self._communicator.Barrier()

    def _broadcast(self, content: bytes) -> bytes:
        self.ranks.delay.inject()
        root, communicator = self.ranks.rank == 0, self._communicator
        size = np.array([len(content)], np.int64)
        wait_for(self.ranks, [communicator.Ibcast(size, root=0)])
        buffer = np.frombuffer(content, np.uint8).copy() if root else np.empty(size[0], np.uint8)
        wait_for(self.ranks, [communicator.Ibcast(buffer, root=0)])
        return buffer.tobytes()
