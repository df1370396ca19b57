"""Whether a run is sound: all ranks hold the same weights, and what coding leaves out stays
small."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpitrain.exchange.codec_protocol import BLOCK, blocks
from mpitrain.exchange.exchange import Exchange
from mpitrain.exchange.mean import LOOKED_AT_VALUES
from mpitrain.exchange.sums import Squares, checksums
from mpitrain.job.errors import RunError, agreed
from mpitrain.mpi.wire import Wire
from mpitrain.network.graph import Graph

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World

EVERY = 50
"""Steps between two looks. At each of them devices read all weights, and all that is not sent."""


def choose_sample(exchange: Exchange, step: int) -> None:
    """Before a step, counted from 1, after which weights are compared: choose the bucket whose
    coding is measured."""
    if step % EVERY == 0:
        exchange.sample(step // EVERY)


class Compare:
    """Every EVERY steps: weights are compared, and measures of coding go into the step's line of
    the log."""

    name = "compare"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def due(self, progress: Progress) -> bool:
        return progress.step > self._plan.begun and progress.step % EVERY == 0

    def run(self, world: World, progress: Progress) -> Progress:
        """Raises RunError on every rank if the ranks' weights differ."""
        local, t = world.local, progress.step
        if world.wire.ranks.size == 1:
            return progress
        health = Health(world.wire, local.graph, world.exchange, self._plan.batch_size)
        local.watch.at("compare", t)
        local.fault("compare", t, local.graph.weights)
        health.compare(t)
        return replace(progress, notes={**progress.notes, **health.measures()})


class Health:
    """Looks at the weights and residuals of all ranks, between steps."""

    def __init__(self, wire: Wire, graph: Graph, exchange: Exchange, batch_size: int) -> None:
        self._wire, self._graph, self._exchange, self._images = wire, graph, exchange, batch_size

    def compare(self, step: int) -> None:
        """Raise RunError on every rank, naming the first tensor that differs, unless all hold the
        same weights. Collective."""
        names = list(self._graph.layout.slots)
        found = checksums(self._graph.weights)
        slots = self._graph.layout.slots.values()  # each begins a block, and zeros end its last one
        sums = [zlib.crc32(found[slot.start // BLOCK : blocks(slot.stop)].data) for slot in slots]
        table = self._wire.agree.table(np.array(sums, np.float64))  # which hold 32 bits exactly
        differs = (table != table[0]).any(axis=0)
        if differs.any():
            first = int(np.argmax(differs))
            numbers = self._wire.ranks.numbers
            ranks = [
                str(number)
                for number, row in zip(numbers, table, strict=True)
                if row[first] != table[0, first]
            ]
            who = f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)}"
            raise agreed(
                RunError(
                    f"step {step}: weights differ between rank 0 and {who}, first in {names[first]}"
                )
            )

    def measures(self) -> dict[str, float]:
        """For the log: what coding did in the step that ended. Collective; nothing where nothing is
        coded, or not by this rank.

        sampled_bucket, its number; of its first values (LOOKED_AT_VALUES) measured_error, the
        largest error that coding made in one of the mean, and flushed, the share of all ranks' that
        were coded as zero and are not; residual_norm, of what all ranks have not sent yet, all
        buckets, over the images of a batch.
        """
        exchange, wire = self._exchange, self._wire
        if not exchange.codes:
            return {}
        found, coders = exchange.sampled(), exchange.coders
        looked_at = min(found.sender.size, LOOKED_AT_VALUES) if found is not None else 0
        error, flushed, squares = np.zeros(0, np.float32), 0, 0.0
        if found is not None and coders is not None:
            # A sender's residual is its coding error, and so is the owner's: together they are the
            # error of the mean.
            with found.sender.part(0, looked_at).host() as residual:
                error = residual.copy()
            coders.transfer.allreduce(error)
            error /= np.float32(self._images)
            if found.owner is not None:
                error = error[found.start :][: found.owner.size]
                if error.size:
                    with found.owner.part(0, error.size).host() as residual:
                        error += residual
            elif exchange.shares_owned:
                error = error[:0]  # others own this bucket
            left_out = exchange.residuals()["sender"]
            with left_out.device.scope():
                squares = Squares(left_out)()
            flushed = found.flushed
        table = wire.agree.table(np.array([np.abs(error).max(initial=0.0), flushed, squares]))
        if found is None:
            return {}
        count = exchange.coder_count
        return {
            "sampled_bucket": found.bucket,
            "measured_error": float(table[:, 0].max()),
            "flushed": float(table[:, 1].sum()) / (looked_at * count),
            "residual_norm": math.sqrt(table[:, 2].sum()) / self._images,
        }
