"""Where each parameter lies in a flat vector that is trained, exchanged and saved, and the buckets
that one is sent in.

Every tensor starts at a multiple of 512 values: a codec block never spans two tensors, and OpenCL
can make a sub-buffer of each. The gaps hold zeros. Tensors that may be quantised come first, in
network order; then the others (biases, scales).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.bucket import Bucket, Matrix
from mpitrain.job.cut import round_up
from mpitrain.layers.layer import Parameter, Placement, Shape, size
from mpitrain.runtime.platforms import own_cores

BLOCK = 512
BUCKET = 1 << 21
"""Values in a bucket (8 MiB): large enough that a message's fixed cost vanishes, small enough that
the first leaves early."""
DRAWN = 1 << 22
"""Values that are drawn from one stream: larger tensors have a stream for each such piece of their
rows, so that threads share the work."""
SMALL = 1 << 14
"""A coded part of fewer values than this (64 KiB) is not worth quantising."""


@dataclass(frozen=True)
class Slot:
    """One tensor's place: values [start, start + size) of the flat vector."""

    name: str
    shape: Shape
    start: int
    coded: bool = False
    """Whether it lies in the part of the vector that may be quantised."""

    @property
    def stop(self) -> int:
        return self.start + size(self.shape)


class Layout:
    """Names, shapes and places of all parameters of a network."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        """parameters: in network order, by full name."""
        self.parameters = dict(parameters)
        self.slots: dict[str, Slot] = {}
        at = 0
        for coded in (True, False):
            for name, parameter in parameters.items():
                if parameter.coded == coded:
                    self.slots[name] = Slot(name, parameter.shape, at, coded)
                    at += round_up(size(parameter.shape), BLOCK)
            if coded:
                self.coded = at
                """Values before this one belong to tensors that may be quantised."""
        self.length = at
        self.slots = {name: self.slots[name] for name in parameters}

    @property
    def count(self) -> int:
        """Parameters, without the gaps."""
        return sum(size(slot.shape) for slot in self.slots.values())

    def buckets(self, least: int = 0, whole: bool = False, longest: int = 0) -> list[Bucket]:
        """The vector cut into ranges in the order in which the backward pass completes them; the
        others last.

        least: values of a bucket that may be coded, if more than SMALL. whole: cut between tensors
        alone, which buckets then name. longest: values of one, if not BUCKET.
        """
        found: list[Bucket] = []
        stop = self.coded
        starts = sorted(slot.start for slot in self.slots.values() if slot.coded)
        while stop > 0:
            start = max(0, stop - (longest or BUCKET))
            if whole:
                start = max(each for each in starts if each <= start)
            coded = stop - start >= max(SMALL, least)
            matrices = self._matrices(start, stop) if whole else ()
            found.append(Bucket(len(found), start, stop, coded, matrices))
            stop = start
        if self.length > self.coded:
            found.append(Bucket(len(found), self.coded, self.length, coded=False))
        return found

    def _matrices(self, start: int, stop: int) -> tuple[Matrix, ...]:
        """The tensors of a range as matrices: a row for each output."""
        slots = sorted(self.slots.values(), key=lambda slot: slot.start)
        return tuple(
            Matrix(slot.start - start, slot.shape[0], size(slot.shape[1:]))
            for slot in slots
            if start <= slot.start < stop
        )

    def tensors_in(self, start: int, stop: int) -> list[str]:
        """Names of the tensors that a range of the vector touches, for messages."""
        return [
            slot.name for slot in self.slots.values() if slot.start < stop and slot.stop > start
        ]

    def initial(self, seed: int) -> NDArray[np.float32]:
        """The vector a run with this seed starts from. Each tensor is drawn from (seed, its name),
        whatever else there is; of a slice the whole tensor, and what is this rank's is kept."""
        vector = np.zeros(self.length, np.float32)
        with ThreadPoolExecutor(len(own_cores()), "drawing") as threads:
            for name, parameter in self.parameters.items():
                at = self.slots[name].start
                for piece in slices(_rows(name, parameter, seed, threads), parameter.placement):
                    vector[at : at + piece.size] = piece.reshape(-1)
                    at += piece.size
        return vector


def slices(
    whole: Iterable[NDArray[np.float32]], placement: Placement | None
) -> Iterator[NDArray[np.float32]]:
    """This rank's slice of a tensor whose rows come in pieces, piece by piece in C order; all of it
    where there is no placement."""
    at = 0
    for rows in whole:
        if placement is None:
            yield rows
        else:
            start, stop = placement.shards[placement.rank]
            if placement.axis == 0:
                yield rows[max(0, start - at) : max(0, stop - at)]
            else:
                yield rows[:, start:stop]
        at += len(rows)


def _rows(
    name: str, parameter: Parameter, seed: int, threads: Executor
) -> Iterator[NDArray[np.float32]]:
    """The whole tensor in pieces of rows, few of which are there at a time."""
    rows, *others = parameter.whole
    each = max(1, DRAWN // max(1, size(tuple(others))))
    shapes = [(min(each, rows - start), *others) for start in range(0, rows, each)]
    own = [seed, zlib.crc32(name.encode())]
    streams = [own, *([*own, piece] for piece in range(1, len(shapes)))]
    few = len(own_cores())
    for at in range(0, len(shapes), few):
        yield from threads.map(
            partial(_draw, parameter), shapes[at : at + few], streams[at : at + few]
        )


def _draw(parameter: Parameter, shape: Shape, stream: Sequence[int]) -> NDArray[np.float32]:
    """Values of a piece."""
    random = np.random.default_rng(stream)
    values: NDArray[np.float32]
    if parameter.initial == "he":
        values = random.standard_normal(shape, np.float32)
        values *= np.float32(np.sqrt(2 / parameter.fan))
    elif parameter.initial == "normal":
        values = random.standard_normal(shape, np.float32)
        values *= np.float32(0.01)
    elif parameter.initial == "uniform":
        values = random.random(shape, np.float32) * 2 - 1
        values *= np.float32(1 / np.sqrt(parameter.fan))
    else:
        values = np.full(shape, 1.0 if parameter.initial == "ones" else 0.0, np.float32)
    return values
