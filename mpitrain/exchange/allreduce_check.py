"""Check the arguments of allreduce: on this rank, and that those of all ranks fit together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.errors import UserError
from mpitrain.mpi.wire import Wire

KNOWN = ("auto", "float32", "float16", "dynamic8", "window")
"""The exchanges that allreduce knows."""
FLOAT32 = np.dtype(np.float32)


def check_own(values: NDArray[Any], exchange: str, out: NDArray[Any] | None) -> None:
    """Raise UserError if this rank's arguments are wrong, without asking the others."""
    if values.dtype != FLOAT32:
        raise UserError(f"allreduce: expected a float32 vector, got {values.dtype}")
    if exchange not in KNOWN:
        raise UserError(f"allreduce: expected an exchange of {', '.join(KNOWN)}, got {exchange!r}")
    if not _can_hold(values, out):
        raise UserError(_cannot_hold(values, out))


def _can_hold(values: NDArray[Any], out: NDArray[Any] | None) -> bool:
    """Whether `out` is None or can hold the mean."""
    return out is None or (
        out.dtype == FLOAT32 and out.shape == values.shape and out.flags.c_contiguous
    )


def _cannot_hold(values: NDArray[Any], out: NDArray[Any] | None) -> str:
    came = "" if out is None else f", got {out.dtype}{out.shape}"
    return f"allreduce: expected C-ordered float32{values.shape} as out{came}"


def check_all(wire: Wire, values: NDArray[Any], exchange: str, out: NDArray[Any] | None) -> None:
    """Raise a UserError on every rank unless all ranks' arguments are right and fit together.

    That is: float32 vectors of one size, one exchange, and a usable `out`. Collective.
    """
    kind = KNOWN.index(exchange) if exchange in KNOWN else -1
    facts = np.array([values.size, values.dtype == FLOAT32, kind, _can_hold(values, out)])
    if wire.agree.alike(facts) and facts[1] and kind >= 0 and facts[3]:
        return
    table = wire.agree.table(facts).astype(np.int64)
    for rank, (_, right_type, code, fits) in enumerate(table.tolist()):
        if not right_type:
            came = f", got {values.dtype}" if rank == wire.ranks.rank else ""
            raise UserError(f"allreduce: expected a float32 vector on rank {rank}{came}")
        if code < 0:
            came = f", got {exchange!r}" if rank == wire.ranks.rank else ""
            raise UserError(
                f"allreduce: expected an exchange of {', '.join(KNOWN)} on rank {rank}{came}"
            )
        if not fits:
            raise UserError(
                _cannot_hold(values, out)
                if rank == wire.ranks.rank
                else f"allreduce: rank {rank} has an out that cannot hold the mean"
            )
        if code != table[0, 2]:
            raise UserError(
                f"allreduce: rank 0 asks for {KNOWN[table[0, 2]]}, rank {rank} for {KNOWN[code]}; "
                "expected one exchange"
            )
    sizes = table[:, 0].tolist()
    if len(set(sizes)) > 1:
        odd = next(rank for rank, size in enumerate(sizes) if size != sizes[0])
        raise UserError(
            f"allreduce: rank 0 has {sizes[0]} values, rank {odd} has {sizes[odd]}; expected one "
            "size"
        )
