"""How a run begins: the ranks meet, rank 0 looks at data and disk, and all agree on a Plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mpitrain.data.share import parts
from mpitrain.data.source import Dataset
from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device
from mpitrain.exchange.choice import candidates, choose, coded_from
from mpitrain.exchange.exchange import needs_master
from mpitrain.exchange.home import Home, make_home
from mpitrain.exchange.probe import measure
from mpitrain.exchange.registry import find, is_lossy
from mpitrain.exchange.rows import rows
from mpitrain.exchange.strategy import Strategy
from mpitrain.exchange.window import floats
from mpitrain.job import checkpoint
from mpitrain.job.config import Run, kept, known, split_from
from mpitrain.job.cut import parts as count_of_parts
from mpitrain.job.display import Display
from mpitrain.job.errors import UserError, agreed
from mpitrain.job.log import Log
from mpitrain.job.run_folder import Hold
from mpitrain.layers.conv.precision import use
from mpitrain.mpi.heartbeat import with_heartbeat
from mpitrain.mpi.shared import PAGE
from mpitrain.mpi.wire import Wire
from mpitrain.network import models
from mpitrain.network.batch_limit import batch_limit
from mpitrain.network.graph import Graph, layouts_of, parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.network import Network
from mpitrain.network.parameters import BUCKET
from mpitrain.network.simulated import SimulatedGraph
from mpitrain.network.split import split
from mpitrain.network.traced import TracedGraph
from mpitrain.runtime.platforms import available_memory, own_cores, share_of_cores
from mpitrain.training.alike import check_networks
from mpitrain.training.average import WeightAverage
from mpitrain.training.faults import Fault
from mpitrain.training.plan import Plan, Resumed
from mpitrain.training.prepare import Prepared, look
from mpitrain.training.reading import choose as choose_reading
from mpitrain.training.reading import use_threads
from mpitrain.training.state import Floats, check_resumable
from mpitrain.training.world import Local, World, applies_mean, make_world
from mpitrain.watch import witness
from mpitrain.watch.signals import Stop
from mpitrain.watch.watchdog import Watchdog

MEMORY_SHARE = 0.75
"""Share of the free memory that weights and a sub-batch chosen by itself may take; the rest is for
messages and other programs."""


PIECES = 32
"""Into which --strict cuts a batch, if nothing is said of it."""


def introduce(wire: Wire, several_hosts: bool) -> None:
    """Tell this rank's witness who it is, and where those of the others answer."""
    witness.who(wire.ranks.name)
    if several_hosts:
        witness.meet(wire.agree.gather_facts)


def join(
    run: Run, wire: Wire, watch: Watchdog, fault: Fault, stop: Stop, hold: Hold
) -> tuple[World, str]:
    """The world of a run before its first step, and what to say of where it starts. Collective.

    Raises UserError, on every rank alike, for a run that cannot be.
    """
    stop.listen()
    watch.at("setup")
    fault("setup", 0)
    _check_outlives(run, wire)
    prepared, dataset = _prepare(run, wire, watch, hold)
    run = prepared.complete(run)
    reading, dataset = choose_reading(run, wire, dataset)
    network = models.load(run.network, prepared.shape, prepared.classes, dropout=not run.no_dropout)
    check_networks(network, run.network, wire)
    neighbours = wire.agree.neighbours(own_cores())
    cores = share_of_cores(neighbours, wire.ranks.local_rank)
    device: Engine = wire.agree.together(lambda: _open_device(run, wire, cores))
    use_threads(dataset, run.decoders, device, len(cores))
    least = split_from(run.dense)
    peers = rows(run.activations, wire.activations, device)
    placed = network if least is None else split(network, peers, least)
    resumed = _to_resume(run, wire, prepared, network, watch) if run.resume else None
    drawn = None if resumed else _drawing(placed, run.seed, wire)

    watch.at("compile")
    fault("compile", 0)
    kind, reason, coded = _choose_exchange(run, wire, device, resumed)
    strategy = find(kind)
    if run.strict:
        _check_alike(kind, device, wire)
        device.cut_alike()
    if strategy.replicated_only:
        run = replace(run, update="replicated")
    sub_batch = (
        run.sub_batch
        or (resumed and (resumed.exchange == "exact" or not run.strict) and resumed.sub_batch)
        or (run.strict and count_of_parts(known(run.batch_size), PIECES))
        or min(wire.agree.gather_facts(_batch_limit(run, wire, placed, device, kind)))
    )
    if run.strict and count_of_parts(known(run.batch_size), sub_batch) < wire.ranks.size:
        raise agreed(
            UserError(
                f"--strict: --batch-size {run.batch_size} in pieces of {sub_batch} images is too "
                f"few pieces for {wire.ranks.size} ranks; a smaller --sub-batch makes more"
            )
        )
    longest = _longest_bucket(strategy, wire, device, resumed)
    plan = Plan(run, prepared, network, kind, reason, coded, longest, sub_batch, reading, resumed)
    speaks = wire.ranks.rank == 0
    display = Display(silent=not speaks or run.quiet or run.json)
    device.on_compile = _Compiling(watch, display, device.name)
    home = _home(plan, placed, wire, device)
    graph = wire.agree.leaders_first(lambda: _graph(plan, placed, wire, device, home))
    graph.buckets = graph.layout.buckets(coded, strategy.whole_tensors, longest)
    if run.label_smoothing or run.mixup:
        wire.agree.together(lambda: graph.soften(run.label_smoothing))
    graph.normalise(np.array(prepared.mean, np.float32), np.array(prepared.std, np.float32))
    local = Local(
        device=device,
        cores=cores,
        host_cores=len({core for each in neighbours for core in each}),
        graph=graph,
        home=home,
        dataset=dataset,
        several_hosts=not wire.ranks.one_host,
        watch=watch,
        fault=fault,
        stop=stop,
        log=Log(plan.folder if speaks else None, run.json),
        display=display,
        average=WeightAverage(graph, run.ema) if run.ema else None,
        trace=wire.trace if run.trace else None,
    )
    same_ranks = resumed is not None and resumed.ranks == wire.ranks.size
    world = make_world(
        plan, local, wire, resumed.speeds if resumed and same_ranks and plan.by_speed else None
    )
    said = _resume(world, resumed) if resumed else _begin(world, known(drawn))
    _check_space(world)
    return world, said


def _open_device(run: Run, wire: Wire, cores: Sequence[int]) -> Engine:
    """This rank's device, in the precision asked for; says so where it falls back to another, and
    what its driver lacks."""
    device = open_device(run.device, wire.ranks.local_rank, cores, run.engine)
    for lacking in (device.lacks, use(device, run.precision)):
        if lacking:
            print(f"rank {wire.ranks.rank}: {lacking}", file=sys.stderr, flush=True)
    return device


def _check_alike(kind: str, device: Engine, wire: Wire) -> None:
    """Raise UserError for --strict where bits would depend on the number of ranks."""
    if kind != "exact":
        raise agreed(UserError(f"--strict: expected --exchange exact or auto, got {kind}"))
    devices = wire.agree.gather_facts(device.identity)
    if other := next((each for each in devices if each != devices[0]), None):
        raise agreed(
            UserError(f"--strict: expected one kind of device, got {devices[0]} and {other}")
        )


def _check_outlives(run: Run, wire: Wire) -> None:
    """Raise UserError for --on-failure continue where MPI ends the job when a rank dies."""
    if run.on_failure != "continue":
        return
    witness.spare_the_launcher()
    if wire.ranks.size > 1 and not wire.ranks.outlives_ranks:
        raise agreed(
            UserError(
                "--on-failure continue: expected Open MPI 5 under mpirun --with-ft ulfm, "
                f"got {wire.ranks.library}, which ends the job when a rank dies"
            )
        )


def _prepare(run: Run, wire: Wire, watch: Watchdog, hold: Hold) -> tuple[Prepared, Dataset | None]:
    """What rank 0 finds out of data and disk, on every rank; the data themselves on rank 0
    alone."""
    dataset: Dataset | None = None

    def look_at(alive: Callable[[], None]) -> dict[str, Any]:
        nonlocal dataset
        found, dataset = look(run, wire.ranks.size, alive, hold)
        return asdict(found)

    found = with_heartbeat(wire.agree, look_at, lambda: watch.at("setup"))
    return Prepared.of_json(found), dataset


def _to_resume(
    run: Run, wire: Wire, prepared: Prepared, network: Network, watch: Watchdog
) -> Resumed | None:
    """The checkpoint to go on from; None if the run is yet to save its first one."""

    def find() -> dict[str, Any] | None:
        folder = Path(prepared.folder)
        found = checkpoint.to_resume(folder, known(run.resume), lambda: watch.at("setup"))
        if found is None:
            return None
        check_resumable(found, network, run, prepared.count, prepared.identity)
        names = (
            "step", "sub_batch", "exchange", "coded_from", "longest_bucket", "ranks", "split",
            "speeds", "best", "waited",
        )  # fmt: skip
        settings = {name: found.settings.get(name) for name in names}
        return {"path": str(found.path), "refused": found.refused, **settings}

    found = wire.agree.from_root(find)
    return Resumed(**found) if found else None


def _choose_exchange(
    run: Run, wire: Wire, device: Engine, resumed: Resumed | None
) -> tuple[str, str, int]:
    """How gradients travel, why, and from how many values on buckets are coded.

    As before where a run goes on, for residuals and the order of sums belong to it.
    """
    if run.strict and run.exchange == "auto":
        return "exact", "--strict", 0
    lossy_before = resumed is not None and is_lossy(resumed.exchange)
    coded = int(resumed.coded_from or 0) if resumed and lossy_before else 0
    if resumed and run.exchange == "auto" and (resumed.ranks == wire.ranks.size or lossy_before):
        before = resumed.exchange
        if before != "window" or wire.ranks.one_host:
            return before, "as the checkpoint's run", coded
    kinds = candidates(run.exchange, wire.ranks)
    if "window" in kinds and not wire.shared.has_room(floats(BUCKET)):
        kinds = ("float32",)
    measured = measure(wire, device, kinds, run.update)
    kind, why = choose(run.exchange, wire.ranks, measured[max(measured)] if measured else None)
    coded = (coded or coded_from(kind, measured)) if is_lossy(kind) else 0
    return (
        kind,
        why + (f"; buckets of fewer than {coded:,} values in float32" if coded else ""),
        coded,
    )


def _longest_bucket(
    strategy: type[Strategy], wire: Wire, device: Engine, resumed: Resumed | None
) -> int:
    """Values of a bucket at most. Collective.

    As before where a run goes on with residuals, which are kept in the order of buckets.
    """
    if resumed and strategy.lossy and is_lossy(resumed.exchange):
        return resumed.longest_bucket or BUCKET
    return strategy.longest(wire, device, BUCKET)


def _batch_limit(run: Run, wire: Wire, network: Network, device: Engine, kind: str) -> int:
    """How many images this rank can compute at a time. Collective."""
    memory = available_memory() if device.kind == "cpu" else device.memory
    mine = [device.kind, device.number]
    room = MEMORY_SHARE * memory / wire.agree.neighbours(mine).count(mine)
    copies = 3 if run.on_failure == "continue" else 0  # of rank 0's: weights, momentum, residual
    own_master = needs_master(wire.ranks.rank, wire.ranks.size, kind, run.update)
    vectors = 2 + applies_mean(wire.ranks.rank, run.update) + own_master + is_lossy(kind) + copies
    vectors += run.ema is not None
    return batch_limit(network, device, room, vectors)


def _home(plan: Plan, placed: Network, wire: Wire, device: Engine) -> Home | None:
    """Memory for weights and gradients that all ranks share, if the exchange is by such memory,
    all devices compute in the host's, and nothing else changes weights. Collective."""
    run = plan.run
    others = plan.continues or plan.simulated or run.clip_norm is not None or run.ema is not None
    if plan.exchange != "window" or wire.ranks.size == 1 or others:
        return None
    length = layouts_of(parameters_of(placed, infer_shapes(placed)))[0].length
    largest = 4 * (length + PAGE) * wire.ranks.size
    if not all(wire.agree.gather_facts(device.shares_memory and largest <= device.largest)):
        return None
    return make_home(wire, length, run.update == "root")


def _graph(plan: Plan, placed: Network, wire: Wire, device: Engine, home: Home | None) -> Graph:
    # With --balance speed a part may grow; one of more than twice the equal size is computed in
    # sub-batches. Ranks that compute layers together need the same capacity: the first one's.
    traces = plan.run.trace and wire.trace
    kind: Callable[..., Graph] = partial(TracedGraph, traces) if traces else Graph
    if plan.run.strict:
        return kind(device, plan.network, plan.sub_batch)
    every = parts(plan.batch_size, wire.ranks.size)
    part = every[wire.ranks.rank if placed is plan.network else 0]
    room = (part.stop - part.start) * (2 if plan.by_speed else 1)
    capacity = min(plan.sub_batch, room)
    if plan.run.compute_seconds is not None:
        return SimulatedGraph(device, placed, capacity, plan.run.compute_seconds)
    weights = gradient = None
    if home:
        gradient = device.around(home.gradients[wire.ranks.rank, : home.length])
        weights = None if home.weights is None else device.around(home.weights)
    return kind(device, placed, capacity, weights=weights, gradient=gradient)


class _Compiling:
    """Says once, on one rank a job, that there is something to wait for."""

    def __init__(self, watch: Watchdog, display: Display, device: str) -> None:
        self._watch, self._display, self._device = watch, display, device
        self._said = False

    def __call__(self, name: str) -> None:
        self._watch.at("compile")
        said, self._said = self._said, True
        if not said:
            self._display.say(
                f"compiling kernels for {self._device}: seconds to a minute, and later runs find "
                "them in a cache"
            )


def _drawing(placed: Network, seed: int, wire: Wire) -> Callable[[], Floats]:
    """What waits for the weights of this seed, which rank 0 draws on a thread while kernels are
    compiled: 138 million take more than a second."""
    if wire.ranks.rank:
        return lambda: np.empty(0, np.float32)  # rank 0 sends them
    layout, _ = layouts_of(parameters_of(placed, infer_shapes(placed)))
    thread = ThreadPoolExecutor(1, "drawing")
    drawn = thread.submit(layout.initial, seed)
    thread.shutdown(wait=False)
    return drawn.result


def _begin(world: World, drawn: Callable[[], Floats]) -> str:
    """Weights as drawn from the seed, or of --init; returns what to say of them."""
    run, folder = world.plan.run, world.plan.folder
    said = world.state.begin(run.seed, drawn, run.init, run.init_partial)
    if not run.resume:
        return said
    nothing = (
        f"--resume: no checkpoint in {folder}/checkpoints yet, so it starts from the beginning."
    )
    return f"{nothing} {said}".rstrip()


def _resume(world: World, resumed: Resumed) -> str:
    """Everything from the checkpoint; returns what to say of it."""
    path = Path(resumed.path)
    world.wire.agree.together(lambda: world.state.resume(path, world.plan.run))
    said = [*resumed.refused, f"passed over for {path.name}"] if resumed.refused else []
    before, now = resumed.exchange, world.exchange
    if is_lossy(before) and resumed.ranks > 1 and find(before).left_out != now.left_out:
        why = f"{world.plan.exchange} does not take it up" if now.left_out else "nothing is coded"
        said.append(f"what {before} had left out of {path.name} stays out: {why} here")
    elif is_lossy(before) and resumed.ranks > 1 and not world.state.splits(resumed.split):
        said.append(
            f"what {before} had left out of {path.name} stays out: --dense splits other layers here"
        )
    return "; ".join(said)


def _check_space(world: World) -> None:
    """Raise UserError, on every rank, if the disk has no room for the checkpoints that this run
    will keep."""
    plan = world.plan
    count = max(1, count_of_parts(plan.steps - plan.begun, plan.every("checkpoint_every")))
    nbytes = world.state.size_of_checkpoint()
    if not plan.simulated:
        newest, best = kept(plan.run.keep)
        world.wire.agree.from_root(
            lambda: checkpoint.check_space(plan.folder, nbytes, count, newest + best)
        )
