"""The seam of the exchange: how one bucket is averaged and spread, and what is kept between steps.

A new strategy is a class in a file of its own, and a line in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.residuals import Residuals
from mpitrain.job.errors import UserError
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
    """float32 (n,): rank 0's exact weights, where they are not `weights`."""
    gradients: Mapping[int, Array]
    """By number of bucket: this rank's sums of gradients, float32 (stop - start,)."""
    buckets: Sequence[Bucket]
    to_all: bool
    """Whether every rank gets the mean, and nothing is spread; else rank 0 alone gets it."""
    scale: Callable[[Array, float], None]
    """scale(x, factor): x = x * factor."""
    argument: str = ""
    """What stands after the strategy's name and a colon."""


@dataclass(frozen=True)
class Turn:
    """When a bucket travels, the same on every rank."""

    step: int
    number: int
    """Buckets that were sent before it in this step."""


@dataclass(frozen=True)
class Sampled:
    """What coding left out of one bucket in the last step, as this rank has it."""

    bucket: int
    sender: Array
    owner: Array | None
    """Of the shard of the mean that this rank owns, None where it owns none."""
    start: int
    """Where in the bucket that shard starts."""
    flushed: int
    """Values of this rank that were coded as zero and are not."""


class Strategy:
    """Averages and spreads buckets; a subclass overrides these two, and the rest if it codes."""

    lossy: ClassVar[bool] = False
    """Whether it rounds what it sends, so that rank 0 needs exact weights beside the shared
    ones."""
    root_only: ClassVar[bool] = False
    """Whether rank 0 alone can have the mean."""
    replicated_only: ClassVar[bool] = False
    """Whether every rank must have the mean, and update its own weights."""
    whole_tensors: ClassVar[bool] = False
    """Whether buckets must be cut between tensors alone."""

    def __init__(self, parts: Parts) -> None:
        """Collective."""
        self.parts = parts
        self.owned: list[tuple[int, int]] = []
        """Ranges of the flat vector whose mean this rank codes, in the order of residual
        "owner"."""

    @classmethod
    def check(cls, name: str, argument: str) -> None:
        """Raise UserError if it does not know what stands after its name and a colon."""
        if argument:
            raise UserError(f"--exchange {name}:{argument}: expected nothing after {name}")

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        """The bucket's gradient becomes the sum over ranks divided by `images` where it is wanted.

        Elsewhere it is spent. Returns the bound of the error of a value where the mean is wanted:
        0 if nothing is rounded, infinity if a gradient was not finite.
        """
        raise NotImplementedError

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        """Rank 0's new weights of the bucket to every rank. Follows `average`, unless `to_all`.

        Returns whether they are finite, as far as the strategy notices.
        """
        raise NotImplementedError

    def __str__(self) -> str:
        """Who codes, if that is not every rank; else nothing."""
        return ""

    @property
    def coders(self) -> Wire | None:
        """The ranks that code; None on a rank that does not, and where nothing is coded."""
        return None

    @property
    def codes(self) -> bool:
        """Whether any rank codes anything."""
        return False

    @property
    def seat(self) -> tuple[int, int]:
        """This rank's number among those that code (-1: it does not), and how many there are."""
        return self.parts.wire.ranks.rank, self.parts.wire.ranks.size

    @property
    def shares_owned(self) -> bool:
        """Whether each rank that codes owns a part of each coded bucket (else nobody owns any)."""
        return self.seat[1] > 2 and not self.root_only

    def residuals(self) -> dict[str, Array]:
        """What coding has left out so far, by name; empty where nothing is coded."""
        return {}

    def restore(self, old: Residuals) -> None:
        """Go on with residuals that as many or fewer or more ranks have left."""

    def sample(self, number: int) -> None:
        """Watch, in the next step, the number-th of the coded buckets, round and round."""

    def sampled(self) -> Sampled | None:
        """What was left out of the bucket that `sample` chose; None on a rank that codes
        nothing."""
        return None

    def weights(self, bucket: Bucket) -> tuple[Array, Array | None]:
        """The bucket's part of this rank's weights and, on rank 0 alone, of the exact ones."""
        parts = self.parts
        shared = parts.weights.part(bucket.start, bucket.stop)
        if parts.wire.ranks.rank:
            return shared, None
        return shared, (parts.master or parts.weights).part(bucket.start, bucket.stop)
