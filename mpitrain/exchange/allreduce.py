"""The mean of a NumPy vector over ranks, by itself: no network, the same bytes on every rank."""

from __future__ import annotations

import weakref
import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.blocking import Floats, Way, by_doubling, by_library, by_shards
from mpitrain.exchange.choice import KINDS, candidates, quickest
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_numpy import Plain
from mpitrain.exchange.hops import Hops
from mpitrain.exchange.mean import Mean, Place
from mpitrain.exchange.probe import in_turn
from mpitrain.exchange.stream import MOST, fly
from mpitrain.exchange.window import SLOTS, Window
from mpitrain.exchange.wire import Communicator, Wire, over
from mpitrain.report import UserError
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device, open_device

SMALL = 1 << 14
"""Values (64 KiB) up to which few messages may be quickest, and from which codes or shared memory may be."""
KNOWN = ("auto", *KINDS)
BLOCKING: dict[str, Way] = {"library": by_library, "doubling": by_doubling, "shards": by_shards}
"""Ways of float32 among which "auto" chooses, beside the other kinds."""
PIECE = 1 << 21
"""Values that travel together: 8 MiB, as a bucket of a network."""


@dataclass
class _Tools:
    """What is made once for a communicator."""

    device: Device | None = None
    means: dict[str, list[Mean[Array]]] = field(default_factory=dict)
    pieces: list[Array] = field(default_factory=list)
    window: Window[Plain] | None = None
    seconds: dict[int, dict[str, float]] = field(default_factory=dict)
    """Of each way, for vectors of 2^n values."""
    chosen: dict[int, str] = field(default_factory=dict)
    """The way for each number of values that has come so far."""


_tools: weakref.WeakKeyDictionary[Wire, _Tools] = weakref.WeakKeyDictionary()


def allreduce(
    vector: NDArray[Any],
    comm: Communicator,
    exchange: str = "auto",
    out: Floats | None = None,
    check: bool = True,
) -> Floats:
    """The mean over the communicator of a float32 array of one shape, the same bytes on every rank; collective.

    exchange: "float32", "float16", "dynamic8", "window" (ranks of one host), or "auto": what is quickest, which is measured when a vector
    of about this length first comes, and takes up to a second then. Coded exchanges have no memory: what rounding
    leaves out is lost, not sent with the next call. Raises UserError on every rank if any rank's vector is not float32, or their sizes
    or exchanges differ, or ranks of several hosts are to share memory; RunError if a message comes damaged.
    out: a C-ordered float32 array of the vector's shape for the mean, which may be the vector; a new one if None.
    check: whether ranks first tell each other what they have, which costs a short message; without it vectors that differ in size end as
    they do with MPI: badly.
    """
    wire = over(comm)
    values = np.asarray(vector)
    if check:
        _agree(wire, values, exchange, out)
    else:
        _fits(values, exchange, out)
    mean = np.empty(values.shape, np.float32) if out is None else out
    source = np.asarray(values, order="C")
    if wire.size == 1 or exchange == "float32":
        wire.mean(source, mean)
        return mean
    tools = _tools.get(wire) or _tools.setdefault(wire, _Tools())
    kind = (
        exchange if exchange != "auto" else tools.chosen.get(source.size) or _choose(wire, tools, source.size)
    )
    _by(kind, wire, tools, source, mean)
    return mean


def _by(kind: str, wire: Wire, tools: _Tools, source: Floats, mean: Floats) -> None:
    """mean becomes the mean of the ranks' sources, by one kind of exchange or way of float32."""
    if kind in BLOCKING:
        wire.mean(source, mean, BLOCKING[kind])
        return
    source, flat = source.reshape(-1), mean.reshape(-1)
    cuts = [slice(start, min(start + PIECE, flat.size)) for start in range(0, flat.size, PIECE)]
    if kind == "window":
        window = tools.window = tools.window or Window(wire, PIECE)
        fly(
            window.mean(Plain(source[cut]), wire.size, True, number, Plain(flat[cut]))
            for number, cut in enumerate(cuts)
        )
    elif flat.size:
        means, pieces = _coded_means(wire, tools, kind), _pieces(tools)
        fly(
            _coded(means[number % MOST], pieces[number % MOST], source[cut], flat[cut], wire.size, number)
            for number, cut in enumerate(cuts)
        )


def _coded(
    mean: Mean[Array],
    piece: Array,
    source: Floats,
    to: Floats,
    ranks: int,
    number: int,
) -> Hops[None]:
    """The mean of `source` over ranks into `to`, by way of the device's `piece`."""
    x = piece.part(0, source.size)
    x.write(source)
    yield from mean.hops(x, ranks, Place(0, number))
    with x.host() as coded:
        np.copyto(to, coded)


def _choose(wire: Wire, tools: _Tools, size: int) -> str:
    """What "auto" means for vectors of so many values, on every rank alike."""
    length = min(1 << (size - 1).bit_length() if size else 1, PIECE)
    seconds = tools.seconds.get(length)
    if seconds is None:
        source = _noise(wire, length)
        mean = np.empty_like(source)
        ways = {kind: partial(_by, kind, wire, tools, source, mean) for kind in _ways(wire, length)}
        seconds = tools.seconds[length] = in_turn(wire, ways)
    chosen = quickest(seconds)
    if chosen == "library" and not _alike(wire, size):
        chosen = quickest({kind: time for kind, time in seconds.items() if kind != "library"})
    tools.chosen[size] = chosen
    return chosen


def _ways(wire: Wire, length: int) -> list[str]:
    """What may be quickest for vectors of so many values."""
    ways = [] if length > SMALL else ["doubling"]
    ways += ["library"] if wire.size == 2 else ["library", "shards"]
    if length >= SMALL:
        for kind in candidates("auto", wire):
            if kind != "float32" and (kind != "window" or wire.has_room(SLOTS * PIECE)):
                ways.append(kind)
    return ways


def _alike(wire: Wire, size: int) -> bool:
    """Whether MPI's own sum of vectors of so many values has the same bytes on every rank, as seen with noise.

    Which ranks' values are added first follows from their number and the ranks'. Longer vectors than were measured are not trusted.
    """
    if wire.size == 2:
        return True
    if size > PIECE:
        return False
    mean = np.empty(size, np.float32)
    wire.mean(_noise(wire, size), mean, by_library)
    return bool(np.ptp(wire.table(np.array([zlib.crc32(mean.tobytes())], np.float64))) == 0)


def _noise(wire: Wire, size: int) -> Floats:
    return np.random.default_rng(wire.rank).standard_normal(size, np.float32)


def _device(tools: _Tools) -> Device:
    """Where vectors are coded: a CPU, to which they need not travel."""
    tools.device = tools.device or open_device("cpu")
    return tools.device


def _pieces(tools: _Tools) -> list[Array]:
    """Device memory for the pieces on their way."""
    if not tools.pieces:
        tools.pieces = [_device(tools).empty((PIECE,)) for _ in range(MOST)]
    return tools.pieces


def _coded_means(wire: Wire, tools: _Tools, kind: str) -> list[Mean[Array]]:
    if kind not in tools.means:
        codec = make_codec(kind, _device(tools))
        tools.means[kind] = [Mean(wire, codec, to_all=True) for _ in range(MOST)]
    return tools.means[kind]


def _fits(values: NDArray[Any], exchange: str, out: NDArray[Any] | None) -> None:
    """Raise UserError for what this rank sees by itself."""
    if values.dtype != np.float32:
        raise UserError(f"allreduce: expected a float32 vector, got {values.dtype}")
    if exchange not in KNOWN:
        raise UserError(f"allreduce: expected an exchange of {', '.join(KNOWN)}, got {exchange!r}")
    _takes(values, out)


def _takes(values: NDArray[Any], out: NDArray[Any] | None) -> None:
    if out is not None and not (
        out.dtype == np.float32 and out.shape == values.shape and out.flags.c_contiguous
    ):
        raise UserError(
            f"allreduce: expected C-ordered float32{values.shape} as out, got {out.dtype}{out.shape}"
        )


def _agree(wire: Wire, values: NDArray[Any], exchange: str, out: NDArray[Any] | None) -> None:
    """Raise the same UserError on every rank unless all have float32 vectors of one size and one exchange."""
    _takes(values, out)
    facts = [values.size, values.dtype == np.float32, KNOWN.index(exchange) if exchange in KNOWN else -1]
    table = wire.table(np.array(facts, np.float64)).astype(np.int64)
    for rank, (_, right_type, code) in enumerate(table.tolist()):
        if not right_type:
            came = f", got {values.dtype}" if rank == wire.rank else ""
            raise UserError(f"allreduce: expected a float32 vector on rank {rank}{came}")
        if code < 0:
            came = f", got {exchange!r}" if rank == wire.rank else ""
            raise UserError(f"allreduce: expected an exchange of {', '.join(KNOWN)} on rank {rank}{came}")
        if code != table[0, 2]:
            raise UserError(
                f"allreduce: rank 0 asks for {KNOWN[table[0, 2]]}, rank {rank} for {KNOWN[code]}; expected one exchange"
            )
    sizes = table[:, 0].tolist()
    if len(set(sizes)) > 1:
        odd = next(rank for rank, size in enumerate(sizes) if size != sizes[0])
        raise UserError(
            f"allreduce: rank 0 has {sizes[0]} values, rank {odd} has {sizes[odd]}; expected one size"
        )
