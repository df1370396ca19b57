"""What tests that run on any number of ranks share: every rank can make every rank's values, so
each knows the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device
from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec_numpy import PlainDynamic8
from mpitrain.exchange.codec_protocol import Plain, blocks
from mpitrain.exchange.exchange import Exchange, ExchangeReport, needs_master
from mpitrain.exchange.mean import own_values
from mpitrain.exchange.move import Move
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array

BLOCK = 512


def open_cpu(name: str = "cpu") -> Engine:
    """A CPU device; with "as a gpu" one that takes the kernels' other path."""
    name, _, role = name.partition(" as a ")
    return open_device(name, engine=role or "auto")


def values(size: int, rank: int, seed: int = 0, spread: float = 1.0) -> NDArray[np.float32]:
    """Heavy-tailed values of a rank, as gradients are."""
    random = np.random.default_rng([seed, rank])
    return (random.standard_normal(size) * np.exp(random.standard_normal(size)) * spread).astype(
        np.float32
    )


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def coded_once(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What x is after it has been coded and decoded."""
    codec = PlainDynamic8()
    codes, found = codec.bytes(blocks(x.size) * codec.record), Plain(np.empty_like(x))
    codec.encode(codes, Plain(x))
    codec.decode_add(found, codes, True)
    return found.values


BUCKETS = [
    Bucket(0, 40 * BLOCK, 77 * BLOCK, True),
    Bucket(1, 3 * BLOCK, 40 * BLOCK, True),
    Bucket(2, 0, 3 * BLOCK, True),
    Bucket(3, 77 * BLOCK, 80 * BLOCK, False),
]
"""Last layer first; 37 blocks divide unevenly, and three blocks are fewer than many a number of
ranks."""
MANY = [
    *(
        Bucket(number, (70 - 7 * number) * BLOCK, (77 - 7 * number) * BLOCK, True)
        for number in range(11)
    ),
    Bucket(11, 77 * BLOCK, 80 * BLOCK, False),
]
"""More than are on their way at once."""
LENGTH = 80 * BLOCK
IMAGES = 120


class Model:
    """A vector of weights that an exchange moves by plain gradient descent: w = w - mean."""

    def __init__(
        self,
        wire: Wire,
        kind: str,
        update: str,
        device: Engine | None = None,
        buckets: Sequence[Bucket] = BUCKETS,
        streaming: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        self.wire, self.device, self.buckets = wire, device or open_cpu(), buckets
        self.weights = self.device.upload(values(LENGTH, 99))
        self.gradient = self.device.zeros((LENGTH,))
        self.master: Array | None = None
        if needs_master(wire.ranks.rank, wire.ranks.size, kind, update):
            self.master = self.device.upload(values(LENGTH, 99))
        self.means: NDArray[np.float32] = np.zeros(LENGTH, np.float32)
        self.exchange = Exchange(
            wire, self.device, self.weights, self.gradient, buckets, kind, update, self,
            self.master, streaming, clip_norm=clip_norm,
        )  # fmt: skip

    def set_out(self, gradient: Array) -> None: ...

    def alive(self) -> None: ...

    def update(self, move: Move) -> None:
        target = self.master or self.weights
        with target.part(move.start, move.stop).host(write=True) as w, move.mean.host() as g:
            mean = g * np.float32(move.factor)
            self.means[move.start : move.stop] = mean
            w -= np.float32(0.01) * mean

    def step(
        self, t: int, change: Callable[[NDArray[np.float32]], None] | None = None
    ) -> ExchangeReport:
        gradient = values(LENGTH, self.wire.ranks.rank, t)
        if change:
            change(gradient)
        self.gradient.write(gradient)
        for bucket in self.buckets:
            self.exchange.send(bucket, IMAGES)
        return self.exchange.finish()

    def spoilt(self, t: int, value: float) -> bool:
        """Whether a step is finite in which the last rank has such a value in a coded block."""

        def spoil(gradient: NDArray[np.float32]) -> None:
            if self.wire.ranks.rank == self.wire.ranks.size - 1:
                gradient[50 * BLOCK + 7] = value

        return self.step(t, spoil).finite

    def owned(self) -> list[tuple[int, int]]:
        """Ranges of the flat vector whose mean this rank makes and codes, in order."""
        exchange, found = self.exchange, []
        for bucket in self.buckets if exchange.shares_owned and exchange.coder_index >= 0 else []:
            size = bucket.size if bucket.coded else 0
            start, stop = own_values(size, exchange.coder_index, exchange.coder_count)
            if stop > start:
                found.append((bucket.start + start, bucket.start + stop))
        return found

    def left_out(self) -> NDArray[np.float64]:
        """What this rank's coding has left out so far, over the images of a step, each value at its
        place."""
        left, at = np.zeros(LENGTH), 0
        sender, owner = (self.exchange.residuals()[name].download() for name in ("sender", "owner"))
        for bucket in self.buckets if sender.size else []:
            if bucket.coded:
                size = bucket.stop - bucket.start
                left[bucket.start : bucket.stop] += sender[at : at + size] / IMAGES
                at += size
        at = 0
        for start, stop in self.owned():
            left[start:stop] += owner[at : at + stop - start]
            at += stop - start
        return left


def true_mean(size: int, t: int) -> NDArray[np.float64]:
    """The mean gradient of step t over so many ranks, in float64."""
    total: NDArray[np.float64] = sum(
        (values(LENGTH, rank, t).astype(np.float64) for rank in range(size)), start=np.zeros(LENGTH)
    )
    return total / IMAGES


def assert_nothing_is_lost(wire: Wire) -> None:
    """Over five steps gradients so far = what was decoded + residuals, so means so far and all
    residuals add up to the true sum."""
    model = Model(wire, "dynamic8", "replicated", buckets=MANY)
    total, true = np.zeros(LENGTH), np.zeros(LENGTH)
    for t in range(5):
        model.step(t)
        total += model.means
        true += true_mean(wire.ranks.size, t)
    np.testing.assert_allclose(
        total + wire.agree.sum(model.left_out()), true, atol=2e-6 * np.abs(true).max()
    )
