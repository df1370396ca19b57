"""Swap activations between ranks in the midst of a pass, beside the exchange of gradients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.errors import RunError
from mpitrain.mpi.pieces import flat
from mpitrain.mpi.transfer import Bytes, Transfer

MESSAGE_BYTES_MAX = (1 << 31) - 1
"""MPI's counts are C ints."""


class Activations:
    """Has a communicator of its own, since buckets of gradients travel meanwhile. For the main
    thread."""

    def __init__(self, transfer: Transfer) -> None:
        """transfer: of one lane, which nobody else uses."""
        self.rank, self.size, self.numbers = transfer.rank, transfer.size, transfer.numbers
        self._transfer = transfer
        self.seconds = 0.0
        """That this rank has spent in `swap` so far, waiting for others included."""

    def swap(
        self,
        outgoing: Sequence[NDArray[Any]],
        incoming: Sequence[NDArray[Any]],
    ) -> None:
        """Send outgoing[r] to each rank r and fill incoming[r] with what it sends, this rank's own
        too. Collective.

        All arrays are C-ordered, in any shape, float32 or coded. Empty ones are not sent; sender
        and receiver must know the size. Raises RunError if a message is too long for MPI, or has
        another size.
        """
        begin = time.perf_counter()
        longest = max(array.nbytes for array in (*outgoing, *incoming))
        if longest > MESSAGE_BYTES_MAX:
            raise RunError(
                f"--dense split: {longest >> 20} MiB of activations for one rank, MPI takes "
                f"{MESSAGE_BYTES_MAX >> 20}; a smaller --sub-batch helps"
            )
        travelling = self._transfer.start_all_to_all(_bytes(outgoing), _bytes(incoming), paced=True)
        incoming[self.rank][...] = outgoing[self.rank]
        travelling.wait()
        self.seconds += time.perf_counter() - begin


def _bytes(arrays: Sequence[NDArray[Any]]) -> list[Bytes | None]:
    return [flat(array).view(np.uint8) for array in arrays]
