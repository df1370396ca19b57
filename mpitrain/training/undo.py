"""Copies of what a step changes on this rank, so that fewer ranks can do it again when one has died
meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.exchange import Exchange
from mpitrain.exchange.residuals import Residuals, as_sender
from mpitrain.network.graph import Graph
from mpitrain.runtime.array import Array
from mpitrain.training.sgd import MomentumSgd

MASTER, VELOCITY, STATISTICS = "master", "velocity", "statistics"


class Undo:
    """Rank 0's weights and momentum, from which all ranks go on; and each rank's statistics and
    residuals, which nobody else has."""

    def __init__(self, graph: Graph, sgd: MomentumSgd | None, exchange: Exchange) -> None:
        """sgd: on rank 0; elsewhere None."""
        self._graph, self._exchange = graph, exchange
        self._now: dict[str, Array] = {**exchange.residuals(), STATISTICS: graph.statistics}
        if sgd:
            self._now |= {MASTER: sgd.weights, VELOCITY: sgd.velocity}
        self._now = {name: array for name, array in self._now.items() if array.size}
        self._kept = {name: graph.device.empty(array.shape) for name, array in self._now.items()}
        self.step = -1
        """The step that has begun last."""
        self.under_way = False
        """Whether it may have changed anything, and has not been done on all ranks."""

    def begin(self, step: int) -> None:
        """Keep what a step is about to change."""
        for name, array in self._now.items():
            self._kept[name].copy_from(array)
        self._graph.device.finish()
        self.step, self.under_way = step, True

    def end(self) -> None:
        """All ranks have done the step."""
        self.under_way = False

    def held(self, step: int) -> Mapping[str, Array]:
        """What was there when so many steps had been done, which the first rank has told.

        A rank that has heard a step's end, while the first has not, cannot go back further than its
        own beginning: its statistics and residuals are a step younger then.
        """
        return self._kept if self.under_way and self.step >= step else self._now

    def restore(self, held: Mapping[str, Array], sgd: MomentumSgd | None) -> None:
        """Put back what `held` has given, into the parts of this rank among fewer ranks. sgd: on
        rank 0; elsewhere None."""
        if STATISTICS in held:
            _copy(self._graph.statistics, held[STATISTICS])
        if sgd:
            _copy(sgd.weights, held[MASTER])
            _copy(sgd.velocity, held[VELOCITY])
            _copy(self._graph.weights, sgd.weights)

    def hand_on(
        self,
        held: Mapping[str, Array],
        exchange: Exchange,
        coder: tuple[int, int],
        images: int,
        step: int,
    ) -> None:
        """Give this rank's residuals to the new exchange, whose next step is `step`.

        coder: this rank's index among the ranks that coded when it held them, and their number.
        """
        # A rank that coded nothing has left nothing out.
        kept = exchange.left_out in held and bool(exchange.residuals())
        sender = self._as_sender(held, coder, images) if kept and "sender" in held else None

        def read(name: str, rank: int, start: int, stop: int) -> NDArray[np.float32]:
            if sender is not None and name == "sender":
                return sender[start:stop]
            values: NDArray[np.float32] = held[name].part(start, stop).download()
            return values

        ranks = exchange.coder_count
        exchange.restore(
            Residuals(read, self._graph.buckets, ranks if kept else 0, False, images), step
        )

    def _as_sender(
        self, held: Mapping[str, Array], coder: tuple[int, int], images: int
    ) -> NDArray[np.float32]:
        lengths = [bucket.stop - bucket.start for bucket in self._graph.buckets if bucket.coded]
        owner = held["owner"].download() if "owner" in held else np.zeros(0, np.float32)
        return as_sender(held["sender"].download(), owner, lengths, *coder, images)


def _copy(to: Array, source: Array) -> None:
    if to is not source:
        to.copy_from(source)
