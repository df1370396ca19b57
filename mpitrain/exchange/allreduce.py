"""The mean of a NumPy vector over ranks, by itself: no network, the same bytes on every rank."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.choice import quickest
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_numpy import HOST_CODECS
from mpitrain.exchange.codec_protocol import Plain
from mpitrain.exchange.leaders import Leaders
from mpitrain.exchange.mean import Mean, Place
from mpitrain.exchange.probe import in_turn
from mpitrain.exchange.spin import Spin, floats
from mpitrain.exchange.stream import BUCKETS_AT_ONCE, run_all
from mpitrain.job.errors import UserError
from mpitrain.mpi.blocking import Floats, Way, by_doubling, by_library, by_shards
from mpitrain.mpi.connect import over
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.wire import Communicator, Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device, open_device

SMALL = 1 << 14
"""Values (64 KiB) up to which few messages may be quickest."""
WORTH_CODING = 1 << 12
"""Values (16 KiB) from which codes may be: over slow links."""
KNOWN = ("auto", "float32", "float16", "dynamic8", "window")
KEPT = "allreduce"
"""Where a wire keeps what this module made for it."""
FLOAT32 = np.dtype(np.float32)
BLOCKING: dict[str, Way] = {"library": by_library, "doubling": by_doubling, "shards": by_shards}
"""Ways of float32 among which "auto" chooses, beside the other kinds."""
PIECE = 1 << 21
"""Values that travel together: 8 MiB, as a bucket of a network."""


@dataclass(frozen=True)
class _Coder:
    """Codes one piece at a time."""

    mean: Mean[Any]
    piece: Any


@dataclass
class _Tools:
    """What is made once for a communicator."""

    device: Device | None = None
    coders: dict[tuple[str, bool], list[_Coder]] = field(default_factory=dict)
    pieces: list[Array] = field(default_factory=list)
    leaders: Leaders | None = None
    spin: Spin | None = None
    turns: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    """Seconds of each way in each turn, for vectors of 2^n values."""
    chosen: dict[int, str] = field(default_factory=dict)
    """The way for each number of values that has come so far."""


def allreduce(
    vector: NDArray[Any],
    comm: Communicator,
    exchange: str = "auto",
    out: Floats | None = None,
    check: bool = True,
) -> Floats:
    """The mean over the communicator of a float32 array of one shape, the same bytes on every rank;
    collective.

    exchange: "float32", "float16", "dynamic8", "window" (ranks of one host), or "auto": what is
    quickest, which is measured when a vector of about this length first comes, and takes up to a
    second then. Coded exchanges have no memory: what rounding leaves out is lost, not sent with the
    next call. Raises UserError on every rank if any rank's vector is not float32, or their sizes or
    exchanges differ, or ranks of several hosts are to share memory; RunError if a message comes
    damaged. out: a C-ordered float32 array of the vector's shape for the mean, which may be the
    vector; a new one if None. check: whether ranks first tell each other what they have, which
    costs a short message; without it vectors that differ in size end as they do with MPI: badly.
    """
    wire = over(comm)
    values = np.asarray(vector)
    if check:
        _agree(wire, values, exchange, out)
    else:
        _fits(values, exchange, out)
    mean = np.empty(values.shape, np.float32) if out is None else out
    source, flat = _apart(values, mean)
    if wire.ranks.size == 1 or exchange == "float32":
        wire.blocking.mean(source, flat)
        return mean
    tools: _Tools = wire.kept.get(KEPT) or _tools(wire)
    kind = (
        exchange
        if exchange != "auto"
        else tools.chosen.get(source.size) or _choose(wire, tools, source.size)
    )
    _by(kind, wire, tools, source, flat)
    return mean


def _tools(wire: Wire) -> _Tools:
    tools: _Tools = wire.kept.setdefault(KEPT, _Tools())
    return tools


def taken(size: int, comm: Communicator) -> str | None:
    """What "auto" takes on this communicator for vectors of so many values; None before one has
    come."""
    return _tools(over(comm)).chosen.get(size)


def _apart(values: NDArray[np.float32], mean: Floats) -> tuple[Floats, Floats]:
    """Both as flat arrays: the same one, or two that share no memory."""
    if values.ndim == mean.ndim == 1 and values.base is None and mean.base is None:
        return values, mean  # owners of their memory cannot share any
    flat, source = mean.reshape(-1), np.asarray(values, order="C").reshape(-1)
    if values is mean:
        return flat, flat
    return source.copy() if np.may_share_memory(source, mean) else source, flat


def _by(kind: str, wire: Wire, tools: _Tools, source: Floats, mean: Floats) -> None:
    """mean becomes the mean of the ranks' sources, by one kind of exchange or way of float32; flat
    ones, as `_apart` makes them."""
    if way := BLOCKING.get(kind):
        wire.blocking.mean(source, mean, way)
        return
    if kind == "window":
        spin = tools.spin = tools.spin or Spin(wire.shared)
        spin.mean(source, mean)
    elif mean.size:
        cuts = [slice(start, min(start + PIECE, mean.size)) for start in range(0, mean.size, PIECE)]
        leaders = tools.leaders = tools.leaders or Leaders(wire, PIECE)
        short = mean.size <= SMALL
        coders = (
            _coders(leaders.wire, tools, kind, short) if leaders.wire else [None] * BUCKETS_AT_ONCE
        )
        run_all(
            _coded(
                leaders,
                coders[number % BUCKETS_AT_ONCE],
                source[cut],
                mean[cut],
                wire.ranks.size,
                number,
            )
            for number, cut in enumerate(cuts)
        )


def _coded(
    leaders: Leaders, coder: _Coder | None, source: Floats, to: Floats, ranks: int, number: int
) -> Hops[None]:
    """The mean of `source` over ranks into `to`; this rank codes if it has a coder."""
    if coder is None:
        yield from leaders.gather(Plain(source), number)
        yield from leaders.spread(Plain(to), number)
        return
    x = coder.piece.part(0, source.size)
    with x.host(write=True) as values:
        np.copyto(values, source)
    yield from leaders.gather(x, number)
    yield from coder.mean.hops(x, ranks, Place(0, number))
    with x.host() as coded:
        np.copyto(to, coded)
    yield from leaders.spread(Plain(to), number)


def _choose(wire: Wire, tools: _Tools, size: int) -> str:
    """What "auto" means for vectors of so many values, on every rank alike."""
    length = min(1 << (size - 1).bit_length() if size else 1, PIECE)
    turns = tools.turns.get(length)
    if turns is None:
        source = _noise(wire, length)
        mean = np.empty_like(source)
        ways = {kind: partial(_by, kind, wire, tools, source, mean) for kind in _ways(wire, length)}
        turns = tools.turns[length] = in_turn(wire, ways)
    chosen = quickest(turns)
    if chosen == "library" and not _alike(wire, size):
        chosen = quickest({kind: times for kind, times in turns.items() if kind != "library"})
    tools.chosen[size] = chosen
    return chosen


def _ways(wire: Wire, length: int) -> list[str]:
    """What may be quickest for vectors of so many values."""
    ways = [] if length > SMALL else ["doubling"]
    ways += ["library"] if wire.ranks.size == 2 else ["library", "shards"]
    if wire.ranks.one_host:
        return [*ways, "window"] if wire.shared.has_room(floats()) else ways
    return [*ways, "dynamic8"] if length >= WORTH_CODING else ways


def _alike(wire: Wire, size: int) -> bool:
    """Whether MPI's own sum of vectors of so many values has the same bytes on every rank, as seen
    with noise.

    Which ranks' values are added first follows from their number and the ranks'. Longer vectors
    than were measured are not trusted.
    """
    if wire.ranks.size == 2:
        return True
    if size > PIECE:
        return False
    mean = np.empty(size, np.float32)
    wire.blocking.mean(_noise(wire, size), mean, by_library)
    return wire.agree.alike(np.array([zlib.crc32(mean.tobytes())]))


def _noise(wire: Wire, size: int) -> Floats:
    return np.random.default_rng(wire.ranks.rank).standard_normal(size, np.float32)


def _device(tools: _Tools) -> Device:
    """Where vectors are coded: a CPU, to which they need not travel."""
    tools.device = tools.device or open_device("cpu")
    return tools.device


def _pieces(tools: _Tools) -> list[Array]:
    """Device memory for the pieces on their way."""
    if not tools.pieces:
        tools.pieces = [_device(tools).empty((PIECE,)) for _ in range(BUCKETS_AT_ONCE)]
    return tools.pieces


def _coders(wire: Wire, tools: _Tools, kind: str, short: bool) -> list[_Coder]:
    """For the pieces that are on their way at once. wire: of the ranks that code. short: with
    NumPy, which needs no other threads."""
    if (kind, short) not in tools.coders:
        codec: Any = HOST_CODECS[kind]() if short else make_codec(kind, _device(tools))
        pieces: list[Any] = [codec.floats(SMALL)] if short else _pieces(tools)
        tools.coders[kind, short] = [
            _Coder(Mean(wire.transfer, codec, to_all=True), piece) for piece in pieces
        ]
    return tools.coders[kind, short]


def _fits(values: NDArray[Any], exchange: str, out: NDArray[Any] | None) -> None:
    """Raise UserError for what this rank sees by itself."""
    if values.dtype != FLOAT32:
        raise UserError(f"allreduce: expected a float32 vector, got {values.dtype}")
    if exchange not in KNOWN:
        raise UserError(f"allreduce: expected an exchange of {', '.join(KNOWN)}, got {exchange!r}")
    if not _takes(values, out):
        raise UserError(_unfit(values, out))


def _takes(values: NDArray[Any], out: NDArray[Any] | None) -> bool:
    """Whether `out` can hold the mean, or there is none."""
    return out is None or (
        out.dtype == FLOAT32 and out.shape == values.shape and out.flags.c_contiguous
    )


def _unfit(values: NDArray[Any], out: NDArray[Any] | None) -> str:
    came = "" if out is None else f", got {out.dtype}{out.shape}"
    return f"allreduce: expected C-ordered float32{values.shape} as out{came}"


def _agree(wire: Wire, values: NDArray[Any], exchange: str, out: NDArray[Any] | None) -> None:
    """Raise the same UserError on every rank unless all have float32 vectors of one size, one
    exchange, and room for the mean."""
    kind = KNOWN.index(exchange) if exchange in KNOWN else -1
    facts = np.array([values.size, values.dtype == FLOAT32, kind, _takes(values, out)])
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
                _unfit(values, out)
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
