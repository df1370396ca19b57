"""The seam of the exchange: how one bucket is averaged and spread, and what lasts between steps.

A new strategy is a class in a file of its own, and a line in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.move import Move
from mpitrain.exchange.residuals import Residuals
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


@dataclass(frozen=True)
class Parts:
    """What a strategy works with on one rank."""

    wire: Wire
    """Of at least two ranks."""
    device: Device
    weights: Array
    """float32 (n,): the weights of this rank."""
    master: Array | None
    """float32 (n,): rank 0's exact weights, if they are not `weights`; None on other ranks."""
    gradients: Mapping[int, Array]
    """By number of bucket: this rank's sum of gradients over images, float32 (stop - start,)."""
    buckets: Sequence[Bucket]
    to_all: bool
    """True: every rank gets the mean, and weights are not spread. False: rank 0 alone gets it."""
    scale: Callable[[Array, float], None]
    """scale(x, factor): x = x * factor."""
    argument: str = ""
    """What the user wrote after the strategy's name and a colon."""
    apart: bool = False
    """Whether buckets are spread only when all are averaged, and not each after its average."""


@dataclass(frozen=True)
class Turn:
    """Which exchange of a bucket this is; the same on every rank."""

    step: int
    number: int
    """How many buckets were sent before it in this step."""


@dataclass(frozen=True)
class Sampled:
    """This rank's residuals of one bucket after the last step."""

    bucket: int
    sender: Array
    owner: Array | None
    """Of the shard of the mean that this rank owns; None if it owns none."""
    start: int
    """Where in the bucket that shard starts."""
    flushed: int
    """How many of the first values (mean.LOOKED_AT_VALUES) are not zero and were coded as zero."""


class Strategy:
    """Averages and spreads buckets. A subclass overrides these two; if it codes, also the rest."""

    lossy: ClassVar[bool] = False
    """Whether it rounds what it sends. Then rank 0 keeps exact weights beside the shared ones."""
    root_only: ClassVar[bool] = False
    """Whether it gives the mean to rank 0 alone."""
    replicated_only: ClassVar[bool] = False
    """Whether every rank must have the mean, and update its own weights."""
    spreads: bool = False
    """Whether `spread` follows `move`; it does wherever not all ranks have the mean."""
    left_out: ClassVar[str] = ""
    """The residual that the next step's gradients are added to, by its name in `residuals`; empty
    if nothing is left out."""
    alone: ClassVar[bool] = False
    """Whether a single rank needs it, too."""
    whole_tensors: ClassVar[bool] = False
    """Whether buckets may be cut only between tensors."""
    lanes: ClassVar[Mapping[int, str]] = {}
    """What travels on each lane of Transfer, in words, for --trace."""

    def __init__(self, parts: Parts) -> None:
        """Collective."""
        self.parts = parts
        self.spreads = self.spreads or not parts.to_all

    @classmethod
    def longest(cls, wire: Wire, device: Device, usual: int) -> int:
        """Values of a bucket at most, `usual` if it does not matter. Collective."""
        return usual

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        """The bucket's gradient becomes the sum over ranks divided by `images`, perhaps but for the
        factor in `move`.

        On ranks that do not get the mean it may be overwritten. Returns a bound of the error of the
        mean's values: 0 if nothing is rounded, infinity if a gradient was not finite.
        """
        raise NotImplementedError

    def add(self, bucket: Bucket) -> None:
        """Take in a piece of the bucket's gradient; `average` follows for the step's last piece.

        A strategy that has it adds up the pieces of a step itself.
        """
        raise NotImplementedError

    def move(self, bucket: Bucket, images: int) -> Move | None:
        """What this rank moves of the averaged bucket; None if it moves nothing. The same arrays
        each step."""
        return self._whole(bucket, 1.0)

    def _whole(self, bucket: Bucket, factor: float) -> Move | None:
        """The whole bucket on ranks that have its mean, whose gradients are yet to be multiplied
        by a factor."""
        if not self.parts.to_all and self.parts.wire.ranks.rank:
            return None
        gradient = self.parts.gradients[bucket.number]
        return Move(bucket.start, bucket.stop, gradient, factor=factor)

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        """Send rank 0's new weights of the bucket to every rank.

        Returns whether they are finite, as far as the strategy notices.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of memory that ranks share, which may be freed from now on."""

    def __str__(self) -> str:
        """For the header of a run: which ranks code, if these are not all ranks, and what there is
        too little of; else empty."""
        return ""

    @property
    def coders(self) -> Wire | None:
        """The wire between the ranks that code; None on other ranks, and if nothing is coded."""
        return None

    @property
    def codes(self) -> bool:
        """Whether any rank codes anything."""
        return False

    @property
    def coder_index(self) -> int:
        """This rank's index among the ranks that code; -1 if it does not."""
        return self.parts.wire.ranks.rank

    @property
    def coder_count(self) -> int:
        """How many ranks code."""
        return self.parts.wire.ranks.size

    @property
    def shares_owned(self) -> bool:
        """Whether each rank that codes owns a shard of each coded bucket; otherwise none does."""
        return self.coder_count > 2 and not self.root_only

    def residuals(self) -> dict[str, Array]:
        """What coding has left out so far, by name; empty if nothing is coded."""
        return {}

    def restore(self, old: Residuals) -> None:
        """Take over the residuals of old ranks, of whatever number."""

    def sample(self, number: int) -> None:
        """In the next step, sample the coded bucket with this index, modulo their number."""

    def sampled(self) -> Sampled | None:
        """The residuals of the bucket that `sample` chose; None on a rank that does not code."""
        return None

    def weights(self, bucket: Bucket) -> tuple[Array, Array | None]:
        """The bucket's part of this rank's weights, and on rank 0 of the exact ones (else None)."""
        parts = self.parts
        shared = parts.weights.part(bucket.start, bucket.stop)
        if parts.wire.ranks.rank:
            return shared, None
        return shared, (parts.master or parts.weights).part(bucket.start, bucket.stop)
