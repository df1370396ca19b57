"""Hand out a batch of images from rank 0 to all ranks, a part each, ahead of its use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mpitrain.mpi.pieces import flat, pieces
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.sent import Sent
from mpitrain.mpi.wait import wait_for


class Scatter:
    """A communicator of its own, so that batches travel beside gradients."""

    def __init__(self, ranks: Ranks, communicator: MPI.Intracomm, sent: Sent) -> None:
        self.rank, self.size = ranks.rank, ranks.size
        self._ranks, self._communicator, self._sent = ranks, communicator, sent

    def start(
        self,
        images: NDArray[Any] | None,
        labels: NDArray[np.int32] | None,
        parts: Sequence[slice],
        shape: tuple[int, ...],
        dtype: Any,
    ) -> Part:
        """Start to hand out a batch, whose part for rank r is parts[r]. Returns at once;
        collective.

        images (n, *shape) of `dtype` and labels int32 (n,) are given on rank 0 only and must not be
        changed until its `Part.wait` returns; the others pass None. Rank 0 sends nothing to itself:
        its part is a view. Raises ValueError if rank 0 passes None.
        """
        mine = parts[self.rank]
        if self.rank == 0:
            if images is None or labels is None:
                raise ValueError("rank 0 hands out images and labels, got None")
            images = np.ascontiguousarray(images, dtype)
            labels = np.ascontiguousarray(labels, np.int32)
            requests = []
            for peer in range(1, self.size):
                for array in (images[parts[peer]], labels[parts[peer]]):
                    content = pieces(flat(array))
                    requests += [self._communicator.Isend(piece, dest=peer) for piece in content]
                    self._sent.feed += array.nbytes
            return Part(self._ranks, images[mine], labels[mine], requests)
        count = mine.stop - mine.start
        images, labels = np.empty((count, *shape), dtype), np.empty(count, np.int32)
        requests = [
            self._communicator.Irecv(piece, source=0)
            for array in (images, labels)
            for piece in pieces(flat(array))
        ]
        return Part(self._ranks, images, labels, requests)


class Part:
    """A rank's part of a batch that may still be on its way."""

    def __init__(
        self,
        ranks: Ranks,
        images: NDArray[Any],
        labels: NDArray[np.int32],
        requests: list[MPI.Request],
    ) -> None:
        self._ranks, self._images, self._labels = ranks, images, labels
        self._requests = requests

    def wait(self) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Images (k, C, H, W) and labels int32 (k,), when they are here.

        Rank 0 waits until all others have theirs or soon will: a send that nobody completes moves
        only while rank 0 is in MPI for something else.
        """
        wait_for(self._ranks, self._requests)
        self._requests = []
        return self._images, self._labels
