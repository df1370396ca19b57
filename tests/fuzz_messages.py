"""Damaged messages between ranks, as many as wanted: `python tests/fuzz_messages.py COUNT [SEED]`.

Of each kind in docs/wire.md that is newer than its first edition, what a receiver does with bytes
or values that nobody would send: it refuses them in a sentence, or takes them with a right result.
Anything else ends this with a traceback, and the seed repeats it.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hostile import decode
from mpi4py import MPI
from numpy.random import Generator

from mpitrain.engine.registry import open_device
from mpitrain.exchange.bucket import Bucket, Matrix
from mpitrain.exchange.codec import make_scale
from mpitrain.exchange.exact import CHUNK
from mpitrain.exchange.factors import Factors, basis_size, first_basis
from mpitrain.exchange.message import HEADER, LAYOUT, Label, check
from mpitrain.job.errors import RunError
from mpitrain.layers.dense.sides import Cut, Whole
from mpitrain.mpi.wait import Messages

VECTORS = Path(__file__).parent / "exchange" / "vectors" / "factors" / "messages"
CODED = ("left", "columns", "parts", "means")
ODD = np.array(
    [0, 0x80000000, 1, 0x007FFFFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000],
    np.uint32,
)
"""Float32 by their bits: zeros, denormals, the largest, infinities, NaN."""
AT_ONCE = 512
"""Messages of `exact` in one launch."""


@cache
def good(kind: str) -> bytes:
    """A message of the test vectors."""
    return next(VECTORS.glob(f"{kind}-*")).read_bytes()


def damaged(random: Generator, data: bytes) -> bytes:
    """Bytes with one to four of them, or a run of them, changed or shifted; as long as before."""
    found = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(0, len(data) if random.random() < 0.5 else HEADER))
        length = int(random.choice([1, 1, 1, 2, 4, 8, 64]))
        new = random.integers(0, 256, length, np.uint8).tobytes()
        if random.random() < 0.2:
            found = found[:at] + new + found[at:]
        else:
            found[at : at + length] = new
    return bytes(found[: len(data)].ljust(len(data), b"\0"))


def coded(random: Generator, kind: str) -> bool:
    """A message with a header, whose checksum is made right half of the time: somebody may wish to
    do harm."""
    data = good(kind)
    fields = LAYOUT.unpack_from(data)
    label, came = Label(*fields[2:8]), bytearray(damaged(random, data))
    right = random.random() < 0.5
    if right:
        came[: HEADER - 8] = data[: HEADER - 8]
        whole = bytes(came[: HEADER - 4]) + bytes(came[HEADER:])
        came[HEADER - 4 : HEADER] = zlib.crc32(whole).to_bytes(4, "little")
    try:
        check(np.frombuffer(bytes(came), np.uint8), label, 1)
    except RunError as error:
        assert str(error).startswith("message from rank 1"), error
        assert not right and bytes(came) != data, error
        return True
    assert right or bytes(came) == data, "damage went unnoticed"
    decode(bytes(came[HEADER:]))
    return False


def floats(random: Generator, size: int) -> Any:
    """Any float32: by random bits, of all magnitudes, with odd ones among them."""
    if random.random() < 0.5:
        return random.standard_normal(size).astype(np.float32) * np.float32(
            2.0 ** random.integers(-140, 120)
        )
    bits = random.integers(0, 1 << 32, size, np.uint32)
    places = random.random(size) < 0.1
    bits[places] = random.choice(ODD, int(places.sum()))
    return bits.view(np.float32)


MATRIX, RANK = Matrix(0, 24, 40), 3


@cache
def factors() -> Factors:
    device = open_device("cpu")
    bucket = Bucket(0, 0, 1024, True, (MATRIX,))
    gradient, unsent = device.zeros((1024,)), device.zeros((1024,))
    basis = device.upload(first_basis([MATRIX], RANK))
    scale = make_scale(device)
    return Factors(device, gradient, unsent, basis, bucket, [MATRIX], RANK, scale)


def left_sum(random: Generator) -> bool:
    """lowrank's sum of P, bare: orthonormal columns, or NaN if anything is not finite."""
    size = RANK * MATRIX.rows
    left = np.zeros(factors().left.size, np.float32)
    left[:size] = floats(random, size)
    finite = np.isfinite(left).all()
    factors().make_orthonormal(left)
    p = left[:size].reshape(RANK, MATRIX.rows).astype(np.float64)
    if not finite:
        assert np.isnan(p).all()
        return True
    np.testing.assert_allclose(p @ p.T, np.eye(RANK), atol=1e-5)
    return False


def right_sum(random: Generator) -> bool:
    """lowrank's sum of Q, bare: the next step starts with finite columns below 1, whatever came."""
    total = np.zeros(basis_size([MATRIX], RANK), np.float32)
    total[: RANK * MATRIX.columns] = floats(random, RANK * MATRIX.columns)
    factors().start_next(total)
    basis = factors()._basis.download()
    assert np.isfinite(basis).all()
    return not np.isfinite(total).all()


def exact(random: Generator) -> Counter[bool]:
    """exact's sums, bare, many at once: the nearest float32 of so many units, or NaN."""
    bits = random.integers(0, 64, AT_ONCE * 8)
    sums = random.integers(-(1 << 63), 1 << 63, AT_ONCE * 8, np.int64, endpoint=False) >> bits
    x, total = _exact_arrays()
    total.write(sums)
    x.device.program("exact").take_exact(sums.size, x, total, sums.size, CHUNK)
    found = x.download()
    wanted = sums.astype(np.float32) * np.float32(2.0**-36)
    stuck = sums >= 1 << 55
    np.testing.assert_array_equal(found, np.where(stuck, np.float32(np.nan), wanted))
    return Counter(stuck.reshape(AT_ONCE, 8).any(axis=1).tolist())


@cache
def _exact_arrays() -> tuple[Any, Any]:
    device = open_device("cpu")
    return device.empty((AT_ONCE * 8,)), device.empty((AT_ONCE * 8,), np.int64)


class Peers:
    """Two ranks, of which the other sends what a test says."""

    rank, size = 0, 2
    come: Any = None

    def swap(self, outgoing: Any, incoming: Any) -> None:
        incoming[0][:] = outgoing[0]
        incoming[1][:] = self.come[: incoming[1].size].reshape(incoming[1].shape)


def activations(random: Generator) -> bool:
    """split's rows, bare: they land where they belong, any float32, and nothing else changes."""
    width, counts = int(random.integers(2, 9)), random.integers(0, 4, 2).tolist()
    peers, rows = Peers(), sum(counts)
    peers.come = floats(random, 64)
    side = (Cut if random.random() < 0.5 else Whole)(peers, width)  # type: ignore[arg-type]
    every = np.zeros((rows, side.here), np.float32)
    own = np.ones((counts[0], width), np.float32)
    side.spread(every, own, counts)
    sent = peers.come[: counts[1] * side.here].view(np.uint32)
    np.testing.assert_array_equal(every[counts[0] :].reshape(-1).view(np.uint32), sent)
    np.testing.assert_array_equal(every[: counts[0]], 1)
    with np.errstate(all="ignore"):
        side.collect(own, every, counts)
    return not np.isfinite(every).all()


def length(random: Generator) -> bool:
    """A message that is shorter than agreed: refused, with its sender and both lengths. (For one
    that is longer MPI says so; Open MPI does not survive many of them.)"""
    sent, wanted = sorted(random.integers(1, 64, 2).tolist())
    sent = wanted if random.random() < 0.3 else sent
    into = np.empty(wanted, np.uint8)
    receiver = SimpleNamespace(rank=0, numbers=(5,))
    received = MPI.COMM_SELF.Irecv(into, source=0)
    sending = MPI.COMM_SELF.Isend(np.zeros(sent, np.uint8), dest=0)
    messages = Messages(receiver, [received], [(0, wanted)])  # type: ignore[arg-type]
    try:
        messages.wait()
    except RunError as error:
        assert str(error) == f"message from rank 5: expected {wanted} bytes, got {sent}"
        assert sent != wanted
        return True
    finally:
        sending.Wait()
    assert sent == wanted
    return False


KINDS: dict[str, Callable[[Generator], bool | Counter[bool]]] = {
    **{f"lowrank8 {kind}": lambda random, kind=kind: coded(random, kind) for kind in CODED},
    "lowrank P": left_sum,
    "lowrank Q": right_sum,
    "exact": exact,
    "split": activations,
    "length": length,
}


def fuzz(kind: str, count: int, seed: int) -> Counter[bool]:
    """How many of at least so many messages were refused (True), or would end a run."""
    random = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    found: Counter[bool] = Counter()
    while found.total() < count:
        one = KINDS[kind](random)
        found.update(one if isinstance(one, Counter) else [one])
    return found


def main(count: int, seed: int = 0) -> None:
    whole = 0
    for kind in KINDS:
        found = fuzz(kind, -(-count // len(KINDS)), seed)
        whole += found.total()
        print(f"{kind:18} {found.total():9,} messages, {found[True]:9,} refused", flush=True)
    print(f"{whole:,} messages: each refused in a sentence or taken with a right result")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
