"""The mean of a NumPy vector over ranks, by itself: no device, no network, the same bytes on every rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.choice import KINDS, choose
from mpitrain.exchange.codec_numpy import Plain, PlainDynamic8, PlainFloat16
from mpitrain.exchange.mean import Mean, Place
from mpitrain.exchange.wire import Communicator, Wire, over
from mpitrain.report import UserError

SMALL = 1 << 14
"""Vectors of fewer values than this (64 KiB) are not coded by "auto": a message's fixed cost is all they pay."""
PIECE = 1 << 21
"""Values coded at a time: 8 MiB, as a bucket of a network."""


def allreduce(vector: NDArray[Any], comm: Communicator, exchange: str = "auto") -> NDArray[np.float32]:
    """The mean over the communicator of a float32 array of one shape, the same bytes on every rank; collective.

    exchange: "float32", "float16", "dynamic8", or "auto": float32 on one host or for short vectors, else dynamic8. Coded exchanges have
    no memory: what rounding leaves out is lost, not sent with the next call. Raises UserError on every rank if any rank's vector is not
    float32, or their sizes or exchanges differ; RunError if a message comes damaged.
    """
    wire = over(comm)
    values = np.asarray(vector)
    _agree(wire, values, exchange)
    kind = "float32" if exchange == "auto" and values.size < SMALL else choose(exchange, wire)[0]
    mean = np.array(values, np.float32, order="C")
    flat = mean.reshape(-1)
    if wire.size == 1:
        return mean
    if kind == "float32":
        wire.allreduce(flat)
        flat /= np.float32(wire.size)
        return mean
    coded = Mean(wire, PlainDynamic8() if kind == "dynamic8" else PlainFloat16(), to_all=True)
    for number, start in enumerate(range(0, flat.size, PIECE)):
        coded(Plain(flat[start : start + PIECE]), wire.size, Place(0, number))
    return mean


def _agree(wire: Wire, values: NDArray[Any], exchange: str) -> None:
    """Raise the same UserError on every rank unless all have float32 vectors of one size and one exchange."""
    known = ("auto", *KINDS)
    facts = [values.size, values.dtype == np.float32, known.index(exchange) if exchange in known else -1]
    table = wire.table(np.array(facts, np.float64)).astype(np.int64)
    for rank, (_, right_type, code) in enumerate(table.tolist()):
        if not right_type:
            came = f", got {values.dtype}" if rank == wire.rank else ""
            raise UserError(f"allreduce: expected a float32 vector on rank {rank}{came}")
        if code < 0:
            came = f", got {exchange!r}" if rank == wire.rank else ""
            raise UserError(f"allreduce: expected an exchange of {', '.join(known)} on rank {rank}{came}")
        if code != table[0, 2]:
            raise UserError(
                f"allreduce: rank 0 asks for {known[table[0, 2]]}, rank {rank} for {known[code]}; expected one exchange"
            )
    sizes = table[:, 0].tolist()
    if len(set(sizes)) > 1:
        odd = next(rank for rank, size in enumerate(sizes) if size != sizes[0])
        raise UserError(
            f"allreduce: rank 0 has {sizes[0]} values, rank {odd} has {sizes[odd]}; expected one size"
        )
