"""The mean of a NumPy vector over ranks, outside of any training, by the fastest exchange."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.registry import open_device
from mpitrain.exchange.allreduce_check import check_all, check_own
from mpitrain.exchange.by_message import ByMessage
from mpitrain.exchange.carrier import Place
from mpitrain.exchange.choice import quickest
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_numpy import HOST_CODECS
from mpitrain.exchange.codec_protocol import Plain
from mpitrain.exchange.leaders import Leaders
from mpitrain.exchange.mean import Mean
from mpitrain.exchange.probe import in_turn
from mpitrain.exchange.spin import Spin, floats
from mpitrain.exchange.stream import BUCKETS_AT_ONCE, run_all
from mpitrain.mpi.blocking import Floats, Way, by_doubling, by_library, by_shards
from mpitrain.mpi.connect import over
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.wire import Communicator, Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

SHORT = 1 << 14
"""Values (64 KiB) up to which recursive doubling may be fastest, and NumPy codes."""
CODED_MIN = 1 << 12
"""Values (16 KiB) from which a coded exchange may be fastest: over slow links."""
KEPT = "allreduce"
"""The key under which a wire keeps this module's `_Tools`."""
BLOCKING: dict[str, Way] = {"library": by_library, "doubling": by_doubling, "shards": by_shards}
"""Ways to exchange float32 among which "auto" chooses, beside the kinds of exchange."""
PIECE = 1 << 21
"""Values that are exchanged together: 8 MiB, the size of a network's bucket."""


@dataclass(frozen=True)
class _Coder:
    """Averages one piece at a time by a coded exchange."""

    mean: Mean[Any]
    piece: Any


@dataclass
class _Tools:
    """What is made once for a communicator, when it is first needed."""

    device: Device | None = None
    coders: dict[tuple[str, bool], list[_Coder]] = field(default_factory=dict)
    pieces: list[Array] = field(default_factory=list)
    leaders: Leaders | None = None
    spin: Spin | None = None
    turns: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    """By length (a power of two): the seconds that each way took in each turn."""
    chosen: dict[int, str] = field(default_factory=dict)
    """By number of values: the way that "auto" has chosen."""


def allreduce(
    vector: NDArray[Any],
    comm: Communicator,
    exchange: str = "auto",
    out: Floats | None = None,
    check: bool = True,
) -> Floats:
    """The mean of a float32 array over the communicator, the same bytes on every rank. Collective.

    exchange: "float32", "float16", "dynamic8", "window" (ranks of one host), or "auto": the fastest
    one, which is measured for up to a second when a vector of about this length first comes. Coded
    exchanges keep no residuals: what rounding leaves out is lost, not sent with the next call.
    out: a C-ordered float32 array of the vector's shape for the mean; it may be the vector. None
    makes a new one. check: whether ranks first compare what they pass, which costs a short message.
    Without it, vectors of different sizes have the consequences that they have in MPI.

    Raises UserError on every rank if any rank's vector is not float32, if their sizes or exchanges
    differ, or if ranks of several hosts are to share memory; RunError if a message comes damaged.
    """
    wire = over(comm)
    values = np.asarray(vector)
    if check:
        check_all(wire, values, exchange, out)
    else:
        check_own(values, exchange, out)
    mean = np.empty(values.shape, np.float32) if out is None else out
    source, flat = _flatten(values, mean)
    if wire.ranks.size == 1 or exchange == "float32":
        wire.blocking.mean(source, flat)
        return mean
    tools: _Tools = wire.kept.get(KEPT) or _tools(wire)
    kind = (
        exchange
        if exchange != "auto"
        else tools.chosen.get(source.size) or _choose(wire, tools, source.size)
    )
    _average(kind, wire, tools, source, flat)
    return mean


def _tools(wire: Wire) -> _Tools:
    tools: _Tools = wire.kept.setdefault(KEPT, _Tools())
    return tools


def taken(size: int, comm: Communicator) -> str | None:
    """What "auto" has chosen here for vectors of so many values; None if nothing yet."""
    return _tools(over(comm)).chosen.get(size)


def _flatten(values: NDArray[np.float32], mean: Floats) -> tuple[Floats, Floats]:
    """Source and mean as flat arrays: the same one, or two that share no memory."""
    if values.ndim == mean.ndim == 1 and values.base is None and mean.base is None:
        return values, mean  # each owns its memory, so they share none
    flat, source = mean.reshape(-1), np.asarray(values, order="C").reshape(-1)
    if values is mean:
        return flat, flat
    return source.copy() if np.may_share_memory(source, mean) else source, flat


def _average(kind: str, wire: Wire, tools: _Tools, source: Floats, mean: Floats) -> None:
    """mean = the mean over ranks of source, by one kind of exchange or way of BLOCKING.

    Both are as `_flatten` makes them.
    """
    if way := BLOCKING.get(kind):
        wire.blocking.mean(source, mean, way)
        return
    if kind == "window":
        spin = tools.spin = tools.spin or Spin(wire.shared)
        spin.mean(source, mean)
    elif mean.size:
        cuts = [slice(start, min(start + PIECE, mean.size)) for start in range(0, mean.size, PIECE)]
        leaders = tools.leaders = tools.leaders or Leaders(wire, PIECE)
        short = mean.size <= SHORT
        coders = (
            _coders(leaders.wire, tools, kind, short) if leaders.wire else [None] * BUCKETS_AT_ONCE
        )
        run_all(
            _coded_hops(
                leaders,
                coders[number % BUCKETS_AT_ONCE],
                source[cut],
                mean[cut],
                wire.ranks.size,
                number,
            )
            for number, cut in enumerate(cuts)
        )


def _coded_hops(
    leaders: Leaders, coder: _Coder | None, source: Floats, to: Floats, ranks: int, number: int
) -> Hops[None]:
    """to = the mean over ranks of source. This rank codes if it has a coder."""
    if coder is None:
        yield from leaders.gather(Plain(source), number)
        yield from leaders.spread(Plain(to), number)
        return
    x = coder.piece.part(0, source.size)
    with x.host(write=True, read=False) as values:
        np.copyto(values, source)
    yield from leaders.gather(x, number)
    yield from coder.mean.hops(x, ranks, Place(0, number))
    with x.host() as coded:
        np.copyto(to, coded)
    yield from leaders.spread(Plain(to), number)


def _choose(wire: Wire, tools: _Tools, size: int) -> str:
    """What "auto" takes for vectors of so many values, the same on every rank. Collective."""
    length = min(1 << (size - 1).bit_length() if size else 1, PIECE)
    turns = tools.turns.get(length)
    if turns is None:
        source = _noise(wire, length)
        mean = np.empty_like(source)
        ways = {
            kind: partial(_average, kind, wire, tools, source, mean) for kind in _ways(wire, length)
        }
        turns = tools.turns[length] = in_turn(wire, ways)
    chosen = quickest(turns)
    if chosen == "library" and not _gives_equal_bytes(wire, size):
        chosen = quickest({kind: times for kind, times in turns.items() if kind != "library"})
    tools.chosen[size] = chosen
    return chosen


def _ways(wire: Wire, length: int) -> list[str]:
    """The ways that may be fastest for vectors of so many values."""
    ways = [] if length > SHORT else ["doubling"]
    ways += ["library"] if wire.ranks.size == 2 else ["library", "shards"]
    if wire.ranks.one_host:
        return [*ways, "window"] if wire.shared.has_room(floats()) else ways
    return [*ways, "dynamic8"] if length >= CODED_MIN else ways


def _gives_equal_bytes(wire: Wire, size: int) -> bool:
    """Whether MPI_Allreduce of so many values gave every rank the same bytes, tried with noise.

    In which order ranks' values are added depends on the number of values and of ranks. Vectors
    that are longer than those measured are not trusted.
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
    """The device that codes: a CPU, to whose memory vectors need not be sent."""
    tools.device = tools.device or open_device("cpu")
    return tools.device


def _pieces(tools: _Tools) -> list[Array]:
    """Device memory for the pieces that are exchanged at once."""
    if not tools.pieces:
        tools.pieces = [_device(tools).empty((PIECE,)) for _ in range(BUCKETS_AT_ONCE)]
    return tools.pieces


def _coders(wire: Wire, tools: _Tools, kind: str, short: bool) -> list[_Coder]:
    """Coders for the pieces that are exchanged at once.

    wire: of the ranks that code. short: code with NumPy, which needs no other threads.
    """
    if (kind, short) not in tools.coders:
        codec: Any = HOST_CODECS[kind]() if short else make_codec(kind, _device(tools))
        pieces: list[Any] = [codec.floats(SHORT)] if short else _pieces(tools)
        tools.coders[kind, short] = [
            _Coder(Mean(ByMessage(wire.transfer, codec), codec, to_all=True), piece)
            for piece in pieces
        ]
    return tools.coders[kind, short]
