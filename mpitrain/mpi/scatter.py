"""Send each rank its part of a batch of images from rank 0, ahead of its use."""

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
    """Has a communicator of its own, so that batches are sent at the same time as gradients."""

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
        """Start to send a batch, of which rank r gets parts[r]. Returns at once. Collective.

        Rank 0 passes images (n, *shape) of `dtype` and labels int32 (n,), and does not change them
        until its `Part.wait` returns; its own part is a view of them. The other ranks pass None.
        Raises ValueError if rank 0 passes None.
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
        """Wait for this rank's images (k, C, H, W) and labels int32 (k,), and return them.

        Rank 0 waits until its sends are done, because MPI advances them only while rank 0 is in a
        call of MPI.
        """
        wait_for(self._ranks, self._requests)
        self._requests = []
        return self._images, self._labels
