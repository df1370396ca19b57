"""A step that is computed in pieces of the batch, of which it does not matter who computes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.exchange import Exchange
from mpitrain.job.cut import parts
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array

UNIT = 2.0**-36
"""Of what the changes of running statistics are whole multiples: these are added up exactly."""


class Pieces:
    """Adds up what this rank's pieces of a step do to gradients and to running statistics.

    Each piece starts from the statistics before the step, which then move by the mean of what the
    pieces did to them.
    """

    def __init__(self, exchange: Exchange, statistics: Array) -> None:
        self._exchange, self._statistics = exchange, statistics
        self._before: NDArray[np.float32] = statistics.download()
        self._moved = np.zeros(statistics.size, np.int64)

    def end(self, last: bool) -> None:
        """A piece has been computed; after the last one its gradients have been sent already."""
        if not last:
            self._exchange.add()
        if self._before.size:
            moved = self._statistics.download().astype(np.float64) - self._before
            self._moved += np.rint(np.nan_to_num(moved) / UNIT).astype(np.int64)
            self._statistics.write(self._before)

    def finish(self, wire: Wire, images: int, piece: int) -> None:
        """All pieces of a batch of `images` are done. Collective."""
        if self._before.size:
            if wire.ranks.size > 1:
                wire.transfer.allreduce(self._moved)
            mean = self._moved * (UNIT / parts(images, piece))
            self._statistics.write((self._before + mean).astype(np.float32))
