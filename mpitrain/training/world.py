"""What a step works with: what this rank has by itself (Local), and the parts tied to living ranks
(World)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mpitrain.data import augment
from mpitrain.data.feed import Batches, Feed
from mpitrain.data.from_disk import FromDisk
from mpitrain.data.from_root import FromRoot
from mpitrain.data.source import Dataset
from mpitrain.engine.engine import Engine
from mpitrain.exchange.exchange import Exchange, Updater, needs_master
from mpitrain.exchange.home import Home
from mpitrain.exchange.move import Move
from mpitrain.exchange.traced import TracedExchange
from mpitrain.job.config import known
from mpitrain.job.display import Display
from mpitrain.job.log import Log
from mpitrain.job.trace import DEVICE, SECOND, Trace
from mpitrain.mpi.wire import Wire
from mpitrain.network.graph import Graph
from mpitrain.runtime.array import Array
from mpitrain.training.average import WeightAverage
from mpitrain.training.faults import Fault
from mpitrain.training.own import OwnUpdate
from mpitrain.training.plan import Plan
from mpitrain.training.sgd import MomentumSgd
from mpitrain.training.state import State
from mpitrain.training.traced import TracedUpdates
from mpitrain.training.undo import Undo
from mpitrain.watch.signals import Stop
from mpitrain.watch.watchdog import Watchdog


@dataclass(frozen=True)
class Local:
    """What this rank has by itself; it outlives the death of other ranks."""

    device: Engine
    cores: Sequence[int]
    """That this rank computes on, if its device is a CPU."""
    host_cores: int
    """That the ranks of this host share."""
    graph: Graph
    home: Home | None
    """Where its weights and gradient lie, if other ranks share it."""
    dataset: Dataset | None
    """On rank 0, and where each rank reads its own part on all."""
    several_hosts: bool
    """Whether the job began on more than one."""
    watch: Watchdog
    fault: Fault
    stop: Stop
    log: Log
    display: Display
    average: WeightAverage | None
    """With --ema."""
    trace: Trace | None
    """With --trace."""


@dataclass(frozen=True)
class World:
    """The parts of a run that know of the other ranks: made anew, with fewer ranks, when one
    dies."""

    plan: Plan
    local: Local
    wire: Wire
    feed: Feed
    sgd: MomentumSgd | None
    """On ranks that apply the mean gradient."""
    own: OwnUpdate | None
    """Where this rank keeps slices that no other rank has."""
    exchange: Exchange
    state: State
    undo: Undo | None
    """With --on-failure continue."""


class Updates:
    """What an exchange asks of the training above it."""

    def __init__(self, local: Local, sgd: MomentumSgd | None) -> None:
        self._watch, self._fault, self._sgd = local.watch, local.fault, sgd

    def set_out(self, gradient: Array) -> None:
        """A bucket of the gradient sets out."""
        self._fault("exchange", self._watch.step, gradient)

    def update(self, move: Move) -> None:
        """Move a range of weights by its mean gradient."""
        self._fault("update", self._watch.step)
        if self._sgd:
            self._sgd.update(move)

    def alive(self) -> None:
        """The exchange goes on."""
        self._watch.at(self._watch.phase)


def make_world(
    plan: Plan, local: Local, wire: Wire, speeds: Sequence[float] | None = None
) -> World:
    """The world of these ranks. Collective. speeds: of each rank, by which batches are divided;
    None: alike."""
    run, graph, device, prepared = plan.run, local.graph, local.device, plan.prepared
    batches = Batches(
        prepared.count,
        prepared.shape,
        prepared.dtype,
        plan.batch_size,
        run.seed,
        augment.parse(run.augment),
        run.mixup,
        plan.steps,
        plan.sub_batch if run.strict else 1,
    )
    train = local.dataset.train if local.dataset else None
    feed: Feed
    if plan.reading.local and train is not None:
        feed = FromDisk(wire.ranks.rank, wire.ranks.size, batches, train)
    else:
        feed = FromRoot(wire.scatter, batches, train)
    if speeds:
        feed.divide(speeds)
    own_master = needs_master(wire.ranks.rank, wire.ranks.size, plan.exchange, run.update)
    master = device.zeros(graph.weights.shape) if own_master else graph.weights
    # Updates are part of the exchange, which goes on beside the backward pass.
    aside = device.beside() if wire.ranks.size > 1 else device
    sgd, velocity = None, local.home.velocity if local.home else None
    if applies_mean(wire.ranks.rank, run.update) or velocity is not None:
        sgd = MomentumSgd(
            aside, master, run.momentum, known(run.weight_decay), run.nesterov,
            aside.around(velocity) if velocity is not None else None,
        )  # fmt: skip
    updates: Updater = Updates(local, sgd)
    kind: Callable[..., Exchange] = Exchange
    if local.trace:
        row = DEVICE if aside is device else SECOND
        updates = TracedUpdates(local.trace, updates, aside, row)
        kind = partial(TracedExchange, local.trace)
    exchange = kind(
        wire, device, graph.weights, graph.gradient, graph.buckets, plan.exchange, run.update,
        updates, master if own_master else None, streaming=not run.no_streaming,
        clip_norm=run.clip_norm, home=local.home,
    )  # fmt: skip
    graph.keep_near(exchange.busy if exchange.streams and not device.shares_memory else None)
    own = None
    if graph.own_layout.slots:
        own = OwnUpdate(graph, run.momentum, known(run.weight_decay), run.nesterov)
    state = State(
        wire, graph, sgd, own.sgd if own else None, exchange, updates.alive, local.average,
        run.strict,
    )  # fmt: skip
    undo = None
    if plan.continues and wire.ranks.size > 1:
        undo = Undo(graph, sgd if wire.ranks.rank == 0 else None, exchange)
    return World(plan, local, wire, feed, sgd, own, exchange, state, undo)


def applies_mean(rank: int, update: str) -> bool:
    """Whether this rank applies the mean gradient."""
    return rank == 0 or update == "replicated"
