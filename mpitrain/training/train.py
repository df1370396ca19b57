"""Training from the first rank's hello to the last checkpoint: set up, loop, report, evaluate, save."""

from __future__ import annotations

import math
import os
import platform
import resource
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mpitrain import __version__
from mpitrain.data import augment
from mpitrain.data.feed import Feed, Plan
from mpitrain.data.share import parts
from mpitrain.data.source import Dataset
from mpitrain.exchange.choice import candidates, choose, coded_from
from mpitrain.exchange.exchange import Exchange, needs_master
from mpitrain.exchange.probe import measure
from mpitrain.exchange.registry import is_lossy
from mpitrain.exchange.window import floats
from mpitrain.job import checkpoint
from mpitrain.job.config import Run, interval, is_made_up, known, write_toml
from mpitrain.job.display import Display
from mpitrain.job.errors import DONE, STOPPED, RunError, UserError, agreed
from mpitrain.job.log import Log
from mpitrain.mpi.connect import abort, connect
from mpitrain.mpi.heartbeat import with_heartbeat
from mpitrain.mpi.survive import among_the_living, give_up
from mpitrain.mpi.wait import FAILURES
from mpitrain.mpi.wire import Wire
from mpitrain.network import models
from mpitrain.network.fit import images_that_fit
from mpitrain.network.graph import Graph
from mpitrain.network.models import netfile
from mpitrain.network.parameters import BUCKET
from mpitrain.network.simulated import Pretend
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device, open_device
from mpitrain.runtime.platforms import available_memory, own_cores, share_of_cores
from mpitrain.training.faults import Fault
from mpitrain.training.hooks.balance import Balance
from mpitrain.training.hooks.compare import Health
from mpitrain.training.hooks.evaluate import Scores, score
from mpitrain.training.prepare import Facts, look
from mpitrain.training.sgd import MomentumSgd, learning_rate
from mpitrain.training.state import State, check_resumable
from mpitrain.training.step import Outcome, Work, step
from mpitrain.training.undo import Undo
from mpitrain.watch import witness
from mpitrain.watch.signals import Stop
from mpitrain.watch.watchdog import Watchdog

ROOM = 0.75
"""Share of the free memory that weights and a sub-batch chosen by itself may take; the rest is for messages and other programs."""

_watch: Watchdog | None = None


def watching() -> Watchdog | None:
    """The watchdog of the training in this process, which knows what is going on, or went on when it failed."""
    return _watch


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    exit_code: int
    step: int
    loss: float
    """Mean over the last step's batch; NaN if there was no step."""
    top1: float | None
    """On the test images, when they were last scored; None if they were not."""
    weights_sha256: tuple[str, ...]
    """One hash a rank, in rank order, of all parameters as little-endian float32 in network order."""
    folder: Path


def train(run: Run) -> Result:
    """Train a network on all ranks of this job. Raises UserError, on every rank alike, for a run that cannot be."""
    global _watch
    wire = connect()
    _introduce(wire, not wire.ranks.one_host)
    fault = wire.agree.together(lambda: Fault(run.inject, wire.ranks.rank))
    wire.ranks.delay.seconds = fault.delay
    _watch = Watchdog(wire.ranks.rank, run.stall_seconds, abort)
    stop = Stop()
    try:
        result = _Training(run, wire, _watch, fault, stop).go()
    finally:
        _watch.stop()
        stop.leave()
    _watch = None
    return result


def _introduce(wire: Wire, several_hosts: bool) -> None:
    """Tell this rank's witness who it is, and where those of the others answer."""
    witness.who(wire.ranks.name)
    if several_hosts:
        witness.meet(wire.agree.gather_facts)


@dataclass
class _Now:
    """How far the loop is."""

    step: int
    """Steps that all ranks have done."""
    loss: float = math.nan
    stop: bool = False
    """Whether a signal has asked for the end."""
    settled: bool = True
    """Whether what comes after the step is done, too."""
    saved: int = -1
    scored: int = -1
    scores: Scores | None = None

    @classmethod
    def of_json(cls, facts: dict[str, Any]) -> _Now:
        scores = facts.pop("scores")
        return cls(**facts, scores=Scores(**scores) if scores else None)


@dataclass(frozen=True)
class _Agreed:
    """What every rank knows of a step that is done."""

    loss: float
    """Mean over the batch."""
    error_bound: float
    stop: bool
    """Whether a signal asks for the end."""
    cpu_seconds: float
    """Of all ranks' processes, since the step before was done."""


class _Updater:
    """What the exchange calls: the update, faults on demand, the watchdog."""

    def __init__(self, sgd: MomentumSgd | None, fault: Fault, watch: Watchdog) -> None:
        self._sgd, self._fault, self._watch = sgd, fault, watch

    def set_out(self, gradient: Array) -> None:
        self._fault("exchange", self._watch.step, gradient)

    def update(self, start: int, stop: int, mean: Array) -> None:
        self._fault("update", self._watch.step)
        if self._sgd:
            self._sgd.update(start, stop, mean)

    def alive(self) -> None:
        self._watch.at(self._watch.phase)


class _Training:
    """The parts of a run, made in the order in which they are needed."""

    def __init__(self, run: Run, wire: Wire, watch: Watchdog, fault: Fault, stop: Stop) -> None:
        self.wire, self.watch, self.fault, self.stop = wire, watch, fault, stop
        stop.listen()
        watch.at("setup")
        fault("setup", 0)
        self.several_hosts = not wire.ranks.one_host
        if run.on_failure == "continue":
            witness.spare_the_launcher()
        self.ranks = list(range(wire.ranks.size))
        """The numbers that those which are left had when the job began."""
        self.undo: Undo | None = None
        self.held: tuple[Mapping[str, Array], tuple[int, int]] | None = None
        """State to go on from with fewer ranks, and `Exchange.seat` when it was made; while they meet anew."""
        if run.on_failure == "continue" and wire.ranks.size > 1 and not wire.ranks.outlives_ranks:
            raise agreed(
                UserError(
                    "--on-failure continue: expected Open MPI 5 under mpirun --with-ft ulfm, "
                    f"got {wire.ranks.library}, which ends the job when a rank dies"
                )
            )
        self.dataset: Dataset | None = None
        found = with_heartbeat(wire.agree, lambda beat: self._look(run, beat), lambda: watch.at("setup"))
        self.facts = facts = Facts.of_json(found)
        self.run = run = facts.complete(run)
        self.batch_size: int = known(run.batch_size)
        self.folder = Path(facts.folder)
        self.network = models.load(run.network, facts.shape, facts.classes, dropout=not run.no_dropout)
        self.device = self._open_device()
        resumed = wire.agree.from_root(self._to_resume) if run.resume else None

        watch.at("compile")
        fault("compile", 0)
        self.kind, self.why, self.coded_from = self._choose(resumed)
        # With --balance speed a part may grow; one of more than twice the equal size is computed in sub-batches.
        self.by_speed = run.balance == "speed"
        part = parts(self.batch_size, wire.ranks.size)[wire.ranks.rank]
        room = (part.stop - part.start) * (2 if self.by_speed else 1)
        own_master = needs_master(wire.ranks.rank, wire.ranks.size, self.kind, run.update)
        copies = 3 if run.on_failure == "continue" else 0  # of rank 0's: weights, momentum, residual
        vectors = 2 + self._updates + own_master + (is_lossy(self.kind)) + copies
        # One limit for all ranks, kept with the checkpoint: how a part is divided decides in which order its gradients are added.
        self.limit: int = (
            run.sub_batch
            or (resumed and resumed["sub_batch"])
            or min(wire.agree.gather_facts(images_that_fit(self.network, self.device, self._room(), vectors)))
        )
        capacity = min(self.limit, room)
        self.compiles = False
        self.device.on_compile = self._compiling
        self.graph = graph = wire.agree.leaders_first(lambda: self._graph(capacity))
        graph.buckets = graph.layout.buckets(self.coded_from)
        graph.normalise(np.array(facts.mean, np.float32), np.array(facts.std, np.float32))

        known_speeds = resumed["speeds"] if resumed and resumed["ranks"] == wire.ranks.size else None
        self._join(known_speeds if self.by_speed else None)
        self.done, self.said = 0, ""
        if resumed:
            path = Path(resumed["path"])
            self.done = wire.agree.together(lambda: self.state.resume(path, run))
            said = [*resumed["refused"], f"passed over for {path.name}"] if resumed["refused"] else []
            if is_lossy(resumed["exchange"]) and resumed["ranks"] > 1 and not self.exchange.residuals():
                said.append(
                    f"what {resumed['exchange']} had left out of {path.name} stays out: nothing is coded here"
                )
            self.said = "; ".join(said)
        else:
            self.said = self.state.begin(run.seed, run.init)
            if run.resume:
                self.said = f"--resume: no checkpoint in {self.folder}/checkpoints yet, so it starts from the beginning. {self.said}".rstrip()
        self._check_space()

    @property
    def _updates(self) -> bool:
        """Whether this rank applies the mean gradient."""
        return self.wire.ranks.rank == 0 or self.run.update == "replicated"

    def _join(self, speeds: list[float] | None = None) -> None:
        """Make the parts that know of the other ranks."""
        wire, run, graph, facts, watch = self.wire, self.run, self.graph, self.facts, self.watch
        ways = augment.parse(run.augment)
        plan = Plan(facts.count, facts.shape, facts.dtype, self.batch_size, run.seed, ways)
        self.feed = Feed(wire, plan, self.dataset.train if self.dataset else None)
        self.balance, self.named = Balance(speeds), -1
        if speeds:
            self.feed.divide(speeds)
        own_master = needs_master(wire.ranks.rank, wire.ranks.size, self.kind, run.update)
        master = self.device.zeros(graph.weights.shape) if own_master else graph.weights
        # Updates are part of the exchange, which goes on beside the backward pass.
        aside = self.device.beside() if wire.ranks.size > 1 else self.device
        self.sgd = (
            MomentumSgd(aside, master, run.momentum, known(run.weight_decay)) if self._updates else None
        )
        self.exchange = Exchange(
            wire, self.device, graph.weights, graph.gradient, graph.buckets, self.kind, run.update,
            _Updater(self.sgd, self.fault, watch), master if own_master else None, streaming=not run.no_streaming,
        )  # fmt: skip
        self.state = State(wire, graph, self.sgd, self.exchange, lambda: watch.at(watch.phase))
        self.health = Health(wire, graph, self.exchange, self.batch_size)
        self.work = Work(self.feed, graph, self.exchange, watch, self.fault, self.batch_size, run.seed)
        self.undo = None
        if run.on_failure == "continue" and wire.ranks.size > 1:
            self.undo = Undo(graph, self.sgd if wire.ranks.rank == 0 else None, self.exchange)

    def _look(self, run: Run, alive: Callable[[], None]) -> dict[str, Any]:
        facts, self.dataset = look(run, self.wire.ranks.size, alive)
        return facts.as_json()

    def _to_resume(self) -> dict[str, Any] | None:
        """What all ranks must know of the checkpoint to go on from; None if the run is yet to save its first one."""
        found = checkpoint.to_resume(self.folder, known(self.run.resume), lambda: self.watch.at("setup"))
        if found is None:
            return None
        check_resumable(found, self.network, self.run, self.facts.count)
        names = ("sub_batch", "exchange", "coded_from", "ranks", "speeds")
        return {"path": str(found.path), "refused": found.refused} | {
            name: found.settings.get(name) for name in names
        }

    def _open_device(self) -> Device:
        wire = self.wire
        neighbours = wire.agree.neighbours(own_cores())
        self.host_cores = len({core for cores in neighbours for core in cores})
        self.cores = share_of_cores(neighbours, wire.ranks.local_rank)
        device: Device = wire.agree.together(
            lambda: open_device(self.run.device, wire.ranks.local_rank, self.cores)
        )
        return device

    def _compiling(self, name: str) -> None:
        """Say, on one rank a job, that there is something to wait for."""
        self.watch.at("compile")
        if self.wire.ranks.rank == 0 and not self.compiles and not (self.run.json or self.run.quiet):
            print(
                f"compiling kernels for {self.device.name}: seconds to a minute, and later runs find them in a cache",
                flush=True,
            )
        self.compiles = True

    def _check_space(self) -> None:
        """Raise UserError, on every rank, if the disk has no room for the checkpoints that this run will keep."""
        steps = self.facts.steps - self.done
        every = interval(self.run.checkpoint_every, self.facts.per_epoch, "--checkpoint-every")
        nbytes, count = self.state.size_of_checkpoint(), max(1, -(-steps // every))
        if self.run.compute_seconds is None:
            self.wire.agree.from_root(lambda: checkpoint.check_space(self.folder, nbytes, count))

    def _room(self) -> float:
        """Bytes of memory that this rank may take. Collective."""
        memory = available_memory() if self.device.kind == "cpu" else self.device.memory
        mine = [self.device.kind, self.device.number]
        return ROOM * memory / self.wire.agree.neighbours(mine).count(mine)

    def _graph(self, capacity: int) -> Graph:
        if self.run.compute_seconds is not None:
            return Pretend(self.device, self.network, capacity, self.run.compute_seconds)
        return Graph(self.device, self.network, capacity)

    def _choose(self, resumed: dict[str, Any] | None) -> tuple[str, str, int]:
        """How gradients travel, why, and from how many values on buckets are coded.

        As before where a run goes on, for residuals and the order of sums belong to it.
        """
        wire, run = self.wire, self.run
        coded = int(resumed["coded_from"] or 0) if resumed and is_lossy(resumed["exchange"]) else 0
        if (
            resumed
            and run.exchange == "auto"
            and (resumed["ranks"] == wire.ranks.size or is_lossy(resumed["exchange"]))
        ):
            before = str(resumed["exchange"])
            if before != "window" or wire.ranks.one_host:
                return before, "as the checkpoint's run", coded
        kinds = candidates(run.exchange, wire.ranks)
        if "window" in kinds and not wire.shared.has_room(floats(BUCKET)):
            kinds = ("float32",)
        measured = measure(wire, self.device, kinds, run.update)
        kind, why = choose(run.exchange, wire.ranks, measured[max(measured)] if measured else None)
        coded = (coded or coded_from(kind, measured)) if is_lossy(kind) else 0
        return kind, why + (f"; buckets of fewer than {coded:,} values in float32" if coded else ""), coded

    # -- the loop ----------------------------------------------------------------------------------------------------------------

    def go(self) -> Result:
        """All steps, with what comes between them; then the last checkpoint and the hashes."""
        speaks = self.wire.ranks.rank == 0
        self.log = Log(self.folder if speaks else None, self.run.json)
        self.display = Display(silent=not speaks or self.run.quiet or self.run.json)
        self._late: Callable[[], None] = lambda: None
        try:
            return self._go()
        finally:
            self._catch_up()
            self.display.close()
            self.log.close()
            self.exchange.close()

    def _go(self) -> Result:
        self._header()
        begin, self.now = time.perf_counter(), _Now(self.done)
        self._cpu = time.process_time()
        self.recent: deque[float] = deque(maxlen=100)
        self.display.begin(self.done, self.facts.steps)
        dead: Exception | None = None
        while True:
            try:
                if dead is not None:
                    self._go_on_without_the_dead(dead)
                dead = None
                self._go_on()
                return self._end(self.now, time.perf_counter() - begin)
            except FAILURES as error:
                if self.undo is None:
                    raise
                dead = error

    def _go_on(self) -> None:
        """The steps that are left, and what comes after each."""
        now = self.now
        while not now.settled or (now.step < self.facts.steps and not now.stop):
            if now.settled:
                self._step()
            self._settle()
        if now.saved != now.step:
            self._save(now.step)
            now.saved = now.step

    def _step(self) -> None:
        """One step, until all ranks have agreed that it is done."""
        run, now, t = self.run, self.now, self.now.step
        self.stop.listen()
        rate = learning_rate(t, self.facts.steps, run.lr, run.schedule, run.warmup)
        if self.sgd:
            self.sgd.rate = rate
        if self.undo:
            self.undo.begin(t)
        sent = self.wire.bytes_sent
        if self.health.due(t + 1):
            self.health.sample(t + 1)
        outcome = step(self.work, t, lambda: self._meanwhile(t))
        agreement = self._agree(outcome, t + 1)
        now.loss, now.stop = agreement.loss, agreement.stop
        health = self._look_after(t + 1)  # a death in it undoes the step, too
        now.step, now.settled = t + 1, False
        if self.undo:
            self.undo.end()
        sent = self.wire.bytes_sent - sent
        self._late = lambda: self._log_step(outcome, agreement, t + 1, rate, sent, health)

    def _meanwhile(self, t: int) -> None:
        """Beside the device's work on step t: say what the step before was, and set the next batch on its way."""
        if t + 1 < self.facts.steps:
            self.feed.start(t + 1)
        self._catch_up()

    def _catch_up(self) -> None:
        """Say of the last step what has not been said yet."""
        late, self._late = self._late, lambda: None
        late()

    def _settle(self) -> None:
        """What is due after a step: a score, a checkpoint."""
        run, now, per_epoch, t = self.run, self.now, self.facts.per_epoch, self.now.step
        if now.stop or t == self.facts.steps:
            self._catch_up()
        last = t == self.facts.steps and not is_made_up(str(run.data))  # whose score says nothing
        # A signal gives little time: the checkpoint comes before anything else.
        due = t % interval(run.evaluate_every, per_epoch, "--evaluate-every") == 0 or last
        if due and not now.stop and now.scored != t:
            now.scores, now.scored = self._score(t), t
        if t % interval(run.checkpoint_every, per_epoch, "--checkpoint-every") == 0:
            self._save(t)
            now.saved = t
        now.settled = True

    def _go_on_without_the_dead(self, error: Exception) -> None:
        """Shrink to the ranks that are alive, and take up what was going on where rank 0 has it.

        Raises agreed errors, which end the job, if rank 0 is dead or nobody is.
        """
        assert self.undo is not None
        self._catch_up()
        undo, now, seat = self.undo, self.now, self.exchange.seat
        self.watch.at("shrink", now.step)
        give_up(self.wire)
        self.exchange.close()
        self.device.finish()
        self.device.beside().finish()
        self.wire = wire = among_the_living(self.wire)
        _introduce(wire, self.several_hosts)
        ranks = list(wire.ranks.numbers)
        if ranks[0] != 0:
            raise agreed(
                RunError(
                    f"step {now.step}: rank 0 is dead, which holds weights and data; --resume goes on from its checkpoint"
                )
            )
        lost = sorted(set(self.ranks) - set(ranks))
        if not lost:  # nothing that fewer ranks would mend
            raise agreed(RunError(str(error))) from error
        self.now = now = _Now.of_json(wire.agree.from_root(lambda: asdict(now)))
        # One more may die meanwhile: what this rank had before the first death is what counts.
        self.held = held, seat = self.held or (undo.held(now.step), seat)
        self._join()
        first = self.sgd if wire.ranks.rank == 0 else None
        undo.restore(held, first)
        self.device.finish()
        velocity = [self.sgd.velocity] if self.sgd and self.run.update == "replicated" else []
        self.state.spread(self.graph.weights, *velocity)
        undo.hand_on(held, self.exchange, seat, self.batch_size, now.step)
        self.held, self.ranks = None, ranks
        self.log.event("lost", step=now.step, ranks=lost, left=wire.ranks.size)
        self.display.say(
            f"step {now.step}: rank{'s' * (len(lost) > 1)} {', '.join(map(str, lost))} lost; {wire.ranks.size} of the ranks "
            f"go{'es' * (wire.ranks.size == 1)} on from here, on the same batches (--on-failure continue)"
        )

    def _agree(self, outcome: Outcome, t: int) -> _Agreed:
        """Tell each other how the step went.

        Raises RunError on every rank for a loss or a gradient that is not finite.
        """
        self.watch.at("agree", t)
        found = outcome.exchange
        mine = [outcome.loss, found.error_bound, float(self.stop.asked), float(not found.finite)]
        mine += [outcome.seconds["compute"], self._cpu_seconds()]
        table = self.wire.agree.table(np.array(mine))
        loss = float(table[:, 0].sum()) / self.batch_size
        if not math.isfinite(loss):
            raise self._diverged(t, f"the loss is {loss}")
        if table[:, 3].any():
            raise self._diverged(t, "the gradient is not finite (NaN or infinite)")
        self._balance(table[:, 4].tolist(), t)
        bound, stop, cpu = float(table[:, 1].max()), bool(table[:, 2].any()), float(table[:, 5].sum())
        return _Agreed(loss, bound, stop, cpu)

    def _cpu_seconds(self) -> float:
        """Of this process, all its threads, since the last call."""
        before, self._cpu = self._cpu, time.process_time()
        return self._cpu - before

    def _balance(self, seconds: list[float], t: int) -> None:
        """Now and then: name a rank that the others wait for, and with --balance speed divide batches anew."""
        images = [part.stop - part.start for part in self.feed.now]
        found = self.balance.note(images, seconds) if self.wire.ranks.size > 1 else None
        if found is None:
            return
        if self.by_speed:
            self.feed.divide(found.speeds)
        parts = [part.stop - part.start for part in self.feed.parts]
        if found.straggler is not None and found.straggler != self.named:
            self.named = found.straggler
            hint = (
                f"it gets {parts[self.named]} images of {self.batch_size}"
                if self.by_speed
                else "--balance speed gives it fewer images"
            )
            self.display.say(
                f"step {t}: rank {self.wire.ranks.numbers[self.named]} makes steps {found.cost:.0%} longer; {hint}"
            )
        if self.by_speed or found.straggler is not None:
            speeds = [round(speed, 2) for speed in found.speeds]
            self.log.event(
                "balance",
                step=t,
                parts=parts,
                speeds=speeds,
                straggler=None if found.straggler is None else self.wire.ranks.numbers[found.straggler],
                cost=found.cost,
            )

    def _look_after(self, t: int) -> dict[str, float]:
        """Every so many steps: measures for the log. Raises RunError on every rank if the ranks' weights differ."""
        if not self.health.due(t):
            return {}
        self.watch.at("compare", t)
        self.fault("compare", t, self.graph.weights)
        self.health.compare(t)
        return self.health.measures()

    def _diverged(self, t: int, what: str) -> RunError:
        return agreed(
            RunError(f"step {t}: {what}; a smaller --lr (now {self.run.lr:g}) or a --warmup may help")
        )

    def _score(self, t: int) -> Scores | None:
        """Score the test images, shared among ranks. Raises RunError on every rank for weights that the last update has spoilt."""
        if not self.facts.tests or self.run.compute_seconds is not None:
            return None
        self._catch_up()
        self.watch.at("evaluate", t)
        self.fault("evaluate", t)
        self.state.average_statistics()
        test = self.dataset.test if self.dataset else None
        found = score(self.wire, self.graph, test, self.facts.tests, lambda: self.watch.at("evaluate", t))
        if not math.isfinite(found.loss):
            raise self._diverged(t, f"the loss on the test images is {found.loss}")
        self.log.event("evaluate", step=t, **asdict(found))
        self.display.say(
            f"Test:  step {t:6d}  loss {found.loss:.4f}  top-1 {found.top1:.4f}  top-5 {found.top5:.4f}  ({found.images} images)"
        )
        return found

    def _save(self, t: int) -> None:
        """Write the checkpoint of a step. Collective. Raises RunError, on every rank, rather than write weights that are not finite."""
        if self.run.compute_seconds is not None:
            return  # nothing has been learnt
        self._catch_up()
        begin = time.perf_counter()
        self.watch.at("checkpoint", t)
        self.fault("checkpoint", t)
        if not self.wire.agree.from_root(self.state.is_finite):
            raise self._diverged(t, "the weights are not finite (NaN or infinite)")
        self.log.check_place()
        self.state.average_statistics()
        path = checkpoint.path_of(self.folder / "checkpoints", t)
        mean, std = self.graph.normal
        settings = {
            "network": netfile.encode(self.network),
            "name": self.network.name,
            "step": t,
            "run": asdict(self.run),
            "mean": mean.tolist(),
            "std": std.tolist(),
            "classes": list(self.dataset.class_names) if self.dataset else [],
            "ranks": self.wire.ranks.size,
            "exchange": self.kind,
            "coders": self.exchange.seat[1],
            "coded_from": self.coded_from,
            "images": self.facts.count,
            "sub_batch": self.limit,
            "speeds": self.balance.speeds if self.by_speed else None,
        }
        try:
            self.state.save(path, settings)
        except RunError:
            self.log.check_place()  # says more than "no such file" where the disk has gone meanwhile
            raise
        self.log.event("checkpoint", step=t, path=str(path), seconds=round(time.perf_counter() - begin, 3))

    # -- words -------------------------------------------------------------------------------------------------------------------

    def _header(self) -> None:
        """Say and log what runs where."""
        wire, run, say, count = self.wire, self.run, self.display.say, self.wire.ranks.size
        cpu = self.device.kind == "cpu"
        held = f", cores {','.join(map(str, self.cores))}" if cpu else ""
        devices = wire.agree.gather_facts(f"{self.device.name} ({self.device.platform}){held}")
        hosts = wire.agree.gather_facts(wire.ranks.host)
        if wire.ranks.rank:
            return
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        versions = {"mpitrain": __version__, "python": platform.python_version(), "mpi": wire.ranks.library}
        versions |= {name: version(name) for name in ("numpy", "pyopencl", "mpi4py")}
        settings = asdict(run) | {
            "exchange_chosen": self.kind,
            "exchange_reason": self.why,
            "coded_from": self.coded_from,
            "coders": self.exchange.seat[1] if self.exchange.codes else 0,
            "capacity": self.graph.capacity,
        }
        tables = {"run": settings, "versions": versions, "ranks": {"devices": devices, "hosts": hosts}}
        write_toml(self.folder / "config.toml", tables)
        self.log.event(
            "start", network=self.network.name, parameters=self.graph.layout.count, ranks=count, devices=devices,
            batch_size=self.batch_size, exchange=self.kind, update=run.update, versions=versions, step=self.done, restarts=restarts,
        )  # fmt: skip
        test = f", {self.facts.tests:,} test" if self.facts.tests else ""
        divided = self.graph.capacity < self.feed.mine.stop - self.feed.mine.start
        say(
            f"mpitrain {__version__}: {self.network.name}, {self.graph.layout.count:,} parameters, on {run.data} "
            f"({self.facts.count:,} images{test}); batch {self.batch_size} over {count} rank{'s' * (count > 1)}"
            + (f" in sub-batches of {self.graph.capacity}" if divided else "")
        )
        shown = devices if run.verbose or count <= 4 else devices[:1]
        for rank, device in enumerate(shown):
            say(f"  rank {rank}: {device}" + (f" and {count - 1} more" if len(shown) < count else ""))
        if wire.ranks.local_size > self.host_cores and cpu:
            say(
                f"  {wire.ranks.local_size} ranks share {self.host_cores} cores of this host: they take turns"
            )
        if cpu and "Portable" in self.device.platform and run.device == "auto":
            say(
                "  PoCL computes, since Intel's runtime is not here; `pip install mpitrain[runtimes]` brings the faster one"
            )
        where = f", {self.exchange}" if str(self.exchange) else ""
        say(f"  {wire.ranks.library}; exchange {self.kind}{where} ({self.why}), update {run.update}")
        if self.dataset:
            self.dataset.bad.tell(self.display, self.log)
        if self.said:
            say(f"  {self.said}")
        if self.done:
            say(f"  goes on after step {self.done} of {self.facts.steps}")
        if restarts:
            say(f"  SLURM has started this job again: restart {restarts}")

    def _log_step(
        self,
        outcome: Outcome,
        agreement: _Agreed,
        t: int,
        lr: float,
        sent: int,
        health: dict[str, float],
    ) -> None:
        per_epoch, total = self.facts.per_epoch, outcome.seconds["total"]
        epoch, place = divmod(t - 1, per_epoch)
        rate = self.batch_size / total
        loss = agreement.loss
        self.recent.append(loss)
        facts: dict[str, Any] = (
            {"error_bound": agreement.error_bound}
            if self.kind == "dynamic8" and self.wire.ranks.size > 1
            else {}
        )
        self.log.event(
            "step", step=t, epoch=epoch, loss=loss, lr=lr, images=self.batch_size, images_per_second=round(rate, 1),
            seconds={name: round(value, 6) for name, value in outcome.seconds.items()}, cpu_seconds=round(agreement.cpu_seconds, 6), bytes_sent=sent,
            **facts, **health,
        )  # fmt: skip

        def line() -> str:
            mean = sum(self.recent) / len(self.recent)
            share = f"[{place + 1:5d}/{per_epoch} ({100 * (place + 1) // per_epoch:3d}%)]"
            speed = f"{total:.3f} s, {rate:.0f} img/s, exchange {outcome.seconds['exchange']:.3f} s"
            return f"Train: {epoch:3d} {share}  loss {loss:.4f} ({mean:.4f})  {speed}  lr {lr:.1e}"

        whole = place + 1 == per_epoch or t == self.facts.steps
        self.display.step(t, f"epoch {epoch}  loss {loss:.3f}  {rate:.0f} img/s", line, whole)

    def _end(self, now: _Now, seconds: float) -> Result:
        """Compare all ranks' weights, and close the log. Raises RunError on every rank if they differ."""
        t = now.step
        self.watch.at("end", t)
        code = DONE if t >= self.facts.steps else STOPPED
        hashes = tuple(self.wire.agree.gather_facts(self.state.sha256()))
        same = len(set(hashes)) == 1
        memory = sum(self.wire.agree.gather_facts(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        images = (t - self.done) * self.batch_size
        self.log.event(
            "end", step=t, seconds=round(seconds, 3), images_per_second=round(images / seconds, 1),
            weights_sha256=list(hashes), peak_memory=memory, exit=code if same else RunError.exit_code,
        )  # fmt: skip
        if not same:
            raise agreed(
                RunError(f"step {t}: ranks hold different weights: {', '.join(each[:8] for each in hashes)}")
            )
        self.display.say(
            f"{'done:' if code == DONE else 'stopped by a signal at'} step {t}, {seconds:.1f} s, all ranks hold the same weights "
            f"(sha256 {hashes[0][:12]}), peak memory of all ranks {memory / 2**30:.2f} GiB, run in {self.folder}"
        )
        return Result(code, t, now.loss, now.scores.top1 if now.scores else None, hashes, self.folder)
