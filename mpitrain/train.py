"""Training from the first rank's hello to the last checkpoint: set up, loop, report, evaluate, save."""

from __future__ import annotations

import math
import os
import platform
import resource
import time
from collections import deque
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mpitrain import __version__, checkpoint, models, witness
from mpitrain.balance import Balance
from mpitrain.config import Run, interval, known, write_toml
from mpitrain.data import augment
from mpitrain.data.source import Dataset
from mpitrain.evaluate import Scores, score
from mpitrain.exchange.choice import LOSSY, candidates, choose
from mpitrain.exchange.exchange import Exchange, needs_master
from mpitrain.exchange.probe import measure
from mpitrain.exchange.window import SLOTS
from mpitrain.exchange.wire import Wire, connect
from mpitrain.facts import Facts, look
from mpitrain.feed import Feed, Plan
from mpitrain.fit import images_that_fit
from mpitrain.graph import Graph
from mpitrain.health import Health
from mpitrain.inject import Fault
from mpitrain.layout import BUCKET
from mpitrain.models import netfile
from mpitrain.pretend import Pretend
from mpitrain.report import DONE, STOPPED, Reporter, RunError, agreed
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device, open_device
from mpitrain.runtime.platforms import available_memory, own_cores, share_of_cores
from mpitrain.sgd import MomentumSgd, learning_rate
from mpitrain.state import State
from mpitrain.step import Outcome, Work, step
from mpitrain.stop import Stop
from mpitrain.watchdog import Watchdog

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
    witness.who(wire.name)
    if not wire.one_host:
        witness.meet(wire.gather_facts)
    fault = wire.together(lambda: Fault(run.inject, wire.rank))
    wire.delay = fault.delay
    _watch = Watchdog(wire.rank, run.stall_seconds, wire.abort)
    stop = Stop()
    try:
        result = _Training(run, wire, _watch, fault, stop).go()
    finally:
        stop.leave()
        _watch.stop()
    _watch = None
    return result


class _Training:
    """The parts of a run, made in the order in which they are needed."""

    def __init__(self, run: Run, wire: Wire, watch: Watchdog, fault: Fault, stop: Stop) -> None:
        self.wire, self.watch, self.fault, self.stop = wire, watch, fault, stop
        stop.listen()
        watch.at("setup")
        fault("setup", 0)
        self.dataset: Dataset | None = None
        self.facts = facts = Facts.of_json(wire.from_root(lambda: self._look(run)))
        self.run = run = facts.complete(run)
        self.batch_size: int = known(run.batch_size)
        self.folder = Path(facts.folder)
        self.network = models.load(run.network, facts.shape, facts.classes, dropout=not run.no_dropout)
        self.device = self._open_device()
        resumed = wire.from_root(self._to_resume) if run.resume else None

        watch.at("compile")
        fault("compile", 0)
        self.kind, self.why = self._choose(resumed)
        own_master = needs_master(wire.rank, wire.size, self.kind, run.update)
        updates = wire.rank == 0 or run.update == "replicated"
        plan = Plan(
            facts.count, facts.shape, facts.dtype, self.batch_size, run.seed, augment.parse(run.augment)
        )
        self.feed = Feed(wire, plan, self.dataset.train if self.dataset else None)
        # With --balance speed a part may grow; one of more than twice the equal size is computed in sub-batches.
        self.by_speed = run.balance == "speed"
        part = (self.feed.mine.stop - self.feed.mine.start) * (2 if self.by_speed else 1)
        vectors = 2 + updates + own_master + (self.kind in LOSSY)
        # One limit for all ranks, kept with the checkpoint: how a part is divided decides in which order its gradients are added.
        self.limit: int = (
            run.sub_batch
            or (resumed and resumed["sub_batch"])
            or min(wire.gather_facts(images_that_fit(self.network, self.device, self._room(), vectors)))
        )
        capacity = min(self.limit, part)
        known_speeds = resumed["speeds"] if resumed and resumed["ranks"] == wire.size else None
        self.balance, self.named = Balance(known_speeds if self.by_speed else None), -1
        if self.balance.speeds:
            self.feed.divide(self.balance.speeds)
        self.compiles = False
        self.device.on_compile = self._compiling
        self.graph = graph = wire.leaders_first(lambda: self._graph(capacity))
        graph.normalise(np.array(facts.mean, np.float32), np.array(facts.std, np.float32))

        master = self.device.zeros(graph.weights.shape) if own_master else graph.weights
        # Updates are part of the exchange, which goes on beside the backward pass.
        aside = self.device.beside() if wire.size > 1 else self.device
        self.sgd = MomentumSgd(aside, master, run.momentum, known(run.weight_decay)) if updates else None
        self.exchange = Exchange(
            wire, self.device, graph.weights, graph.gradient, graph.buckets, self.kind, run.update,
            self._update, master if own_master else None, streaming=not run.no_streaming,
            begin=lambda gradient: fault("exchange", watch.step, gradient), alive=lambda: watch.at(watch.phase),
        )  # fmt: skip
        self.state = State(wire, graph, self.sgd, self.exchange, lambda: watch.at(watch.phase))
        self.health = Health(wire, graph, self.exchange, self.batch_size)
        self.done, self.said = 0, ""
        if resumed:
            path = Path(resumed["path"])
            self.done = wire.together(lambda: self.state.resume(path, run, facts.count))
            said = [*resumed["refused"], f"passed over for {path.name}"] if resumed["refused"] else []
            if resumed["exchange"] in LOSSY and resumed["ranks"] > 1 and not self.exchange.residuals():
                said.append(
                    f"what {resumed['exchange']} had left out of {path.name} stays out: nothing is coded here"
                )
            self.said = "; ".join(said)
        else:
            self.said = self.state.begin(run.seed, run.init)
            if run.resume:
                self.said = f"--resume: no checkpoint in {self.folder}/checkpoints yet, so it starts from the beginning. {self.said}".rstrip()
        self._check_space()

    def _look(self, run: Run) -> dict[str, Any]:
        facts, self.dataset = look(run, self.wire.size)
        return facts.as_json()

    def _to_resume(self) -> dict[str, Any] | None:
        """What all ranks must know of the checkpoint to go on from; None if the run is yet to save its first one."""
        found = checkpoint.to_resume(self.folder, known(self.run.resume), lambda: self.watch.at("setup"))
        if found is None:
            return None
        names = ("sub_batch", "exchange", "ranks", "speeds")
        return {"path": str(found.path), "refused": found.refused} | {
            name: found.settings.get(name) for name in names
        }

    def _open_device(self) -> Device:
        wire = self.wire
        everyone = wire.gather_facts([wire.host, own_cores()])
        neighbours = [cores for host, cores in everyone if host == wire.host]
        self.host_cores = len({core for cores in neighbours for core in cores})
        self.cores = share_of_cores(neighbours, wire.local_rank)
        device: Device = wire.together(lambda: open_device(self.run.device, wire.local_rank, self.cores))
        return device

    def _compiling(self, name: str) -> None:
        """Say, on one rank a job, that there is something to wait for."""
        self.watch.at("compile")
        if self.wire.rank == 0 and not self.compiles and not (self.run.json or self.run.quiet):
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
            self.wire.from_root(lambda: checkpoint.check_space(self.folder, nbytes, count))

    def _update(self, start: int, stop: int, mean: Array) -> None:
        self.fault("update", self.watch.step)
        if self.sgd:
            self.sgd.update(start, stop, mean)

    def _room(self) -> float:
        """Bytes of memory that this rank may take. Collective."""
        memory = available_memory() if self.device.kind == "cpu" else self.device.memory
        places = self.wire.gather_facts([self.wire.host, self.device.kind, self.device.number])
        return ROOM * memory / places.count(places[self.wire.rank])

    def _graph(self, capacity: int) -> Graph:
        if self.run.compute_seconds is not None:
            return Pretend(self.device, self.network, capacity, self.run.compute_seconds)
        return Graph(self.device, self.network, capacity)

    def _choose(self, resumed: dict[str, Any] | None) -> tuple[str, str]:
        """How gradients travel, and why: as before where a run goes on, for residuals and the order of sums belong to it."""
        wire, run = self.wire, self.run
        if (
            resumed
            and run.exchange == "auto"
            and (resumed["ranks"] == wire.size or resumed["exchange"] in LOSSY)
        ):
            before = str(resumed["exchange"])
            if before != "window" or wire.one_host:
                return before, "as the checkpoint's run"
        kinds = candidates(run.exchange, wire)
        if "window" in kinds and not wire.has_room(SLOTS * BUCKET):
            kinds = ("float32",)
        return choose(run.exchange, wire, measure(wire, self.device, kinds, run.update))

    # -- the loop ----------------------------------------------------------------------------------------------------------------

    def go(self) -> Result:
        """All steps, with what comes between them; then the last checkpoint and the hashes."""
        self.reporter = Reporter(self.folder if self.wire.rank == 0 else None, self.run.json, self.run.quiet)
        try:
            return self._go()
        finally:
            self.reporter.close()
            self.exchange.close()

    def _go(self) -> Result:
        run, facts, wire = self.run, self.facts, self.wire
        self._header()
        save_every = interval(run.checkpoint_every, facts.per_epoch, "--checkpoint-every")
        score_every = interval(run.evaluate_every, facts.per_epoch, "--evaluate-every")
        made_up = str(run.data).startswith(
            "synthetic"
        )  # its score says nothing, and may take longer than the run
        work = Work(self.feed, self.graph, self.exchange, self.watch, self.fault, self.batch_size, run.seed)
        begin, t, saved = time.perf_counter(), self.done, -1
        loss, scores, stop = math.nan, None, False
        self.recent: deque[float] = deque(maxlen=100)
        self.reporter.begin(t, facts.steps)
        while t < facts.steps and not stop:
            self.stop.listen()
            rate = learning_rate(t, facts.steps, run.lr, run.schedule, run.warmup)
            if self.sgd:
                self.sgd.rate = rate
            sent = wire.bytes_sent
            if self.health.due(t + 1):
                self.health.sample(t + 1)
            outcome = step(work, t, more=t + 1 < facts.steps)
            t += 1
            loss, bound, stop = self._agree(outcome, t)
            sent = wire.bytes_sent - sent
            self._log_step(outcome, t, loss, bound, rate, sent, self._look_after(t))
            # A signal gives little time: the checkpoint comes before anything else.
            if not stop and (t % score_every == 0 or (t == facts.steps and not made_up)):
                scores = self._score(t)
            if t % save_every == 0:
                self._save(t)
                saved = t
        if saved != t:
            self._save(t)
        return self._end(t, loss, scores, time.perf_counter() - begin)

    def _agree(self, outcome: Outcome, t: int) -> tuple[float, float, bool]:
        """Tell each other how the step went: the batch's mean loss, the error bound, whether a signal asks for the end.

        Raises RunError on every rank for a loss or a gradient that is not finite.
        """
        self.watch.at("agree", t)
        found = outcome.exchange
        mine = [outcome.loss, found.error_bound, float(self.stop.asked), float(not found.finite)]
        mine.append(outcome.seconds["compute"])
        table = self.wire.table(np.array(mine))
        loss = float(table[:, 0].sum()) / self.batch_size
        if not math.isfinite(loss):
            raise self._diverged(t, f"the loss is {loss}")
        if table[:, 3].any():
            raise self._diverged(t, "the gradient is not finite (NaN or infinite)")
        self._balance(table[:, 4].tolist(), t)
        return loss, float(table[:, 1].max()), bool(table[:, 2].any())

    def _balance(self, seconds: list[float], t: int) -> None:
        """Now and then: name a rank that the others wait for, and with --balance speed divide batches anew."""
        images = [part.stop - part.start for part in self.feed.now]
        found = self.balance.note(images, seconds) if self.wire.size > 1 else None
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
            self.reporter.say(f"step {t}: rank {self.named} makes steps {found.cost:.0%} longer; {hint}")
        if self.by_speed or found.straggler is not None:
            speeds = [round(speed, 2) for speed in found.speeds]
            self.reporter.event(
                "balance",
                step=t,
                parts=parts,
                speeds=speeds,
                straggler=found.straggler,
                cost=round(found.cost, 3),
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
        self.watch.at("evaluate", t)
        self.fault("evaluate", t)
        self.state.average_statistics()
        test = self.dataset.test if self.dataset else None
        found = score(self.wire, self.graph, test, self.facts.tests, lambda: self.watch.at("evaluate", t))
        if not math.isfinite(found.loss):
            raise self._diverged(t, f"the loss on the test images is {found.loss}")
        self.reporter.event("evaluate", step=t, **asdict(found))
        self.reporter.say(
            f"Test:  step {t:6d}  loss {found.loss:.4f}  top-1 {found.top1:.4f}  top-5 {found.top5:.4f}  ({found.images} images)"
        )
        return found

    def _save(self, t: int) -> None:
        """Write the checkpoint of a step. Collective. Raises RunError, on every rank, rather than write weights that are not finite."""
        if self.run.compute_seconds is not None:
            return  # nothing has been learnt
        begin = time.perf_counter()
        self.watch.at("checkpoint", t)
        self.fault("checkpoint", t)
        if not self.wire.from_root(self.state.is_finite):
            raise self._diverged(t, "the weights are not finite (NaN or infinite)")
        self.reporter.check_place()
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
            "ranks": self.wire.size,
            "exchange": self.kind,
            "images": self.facts.count,
            "sub_batch": self.limit,
            "speeds": self.balance.speeds if self.by_speed else None,
        }
        self.state.save(path, settings)
        self.reporter.event(
            "checkpoint", step=t, path=str(path), seconds=round(time.perf_counter() - begin, 3)
        )

    # -- words -------------------------------------------------------------------------------------------------------------------

    def _header(self) -> None:
        """Say and log what runs where."""
        wire, run, say, count = self.wire, self.run, self.reporter.say, self.wire.size
        cpu = self.device.kind == "cpu"
        held = f", cores {','.join(map(str, self.cores))}" if cpu else ""
        devices = wire.gather_facts(f"{self.device.name} ({self.device.platform}){held}")
        hosts = wire.gather_facts(wire.host)
        if wire.rank:
            return
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        versions = {"mpitrain": __version__, "python": platform.python_version(), "mpi": wire.library}
        versions |= {name: version(name) for name in ("numpy", "pyopencl", "mpi4py")}
        settings = asdict(run) | {
            "exchange_chosen": self.kind,
            "exchange_reason": self.why,
            "capacity": self.graph.capacity,
        }
        tables = {"run": settings, "versions": versions, "ranks": {"devices": devices, "hosts": hosts}}
        write_toml(self.folder / "config.toml", tables)
        self.reporter.event(
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
        if wire.local_size > self.host_cores and cpu:
            say(f"  {wire.local_size} ranks share {self.host_cores} cores of this host: they take turns")
        if cpu and "Portable" in self.device.platform and run.device == "auto":
            say(
                "  PoCL computes, since Intel's runtime is not here; `pip install mpitrain[runtimes]` brings the faster one"
            )
        say(f"  {wire.library}; exchange {self.kind} ({self.why}), update {run.update}")
        if self.said:
            say(f"  {self.said}")
        if self.done:
            say(f"  goes on after step {self.done} of {self.facts.steps}")
        if restarts:
            say(f"  SLURM has started this job again: restart {restarts}")

    def _log_step(
        self,
        outcome: Outcome,
        t: int,
        loss: float,
        bound: float,
        lr: float,
        sent: int,
        health: dict[str, float],
    ) -> None:
        per_epoch, total = self.facts.per_epoch, outcome.seconds["total"]
        epoch, place = divmod(t - 1, per_epoch)
        rate = self.batch_size / total
        self.recent.append(loss)
        facts: dict[str, Any] = (
            {"error_bound": bound} if self.kind == "dynamic8" and self.wire.size > 1 else {}
        )
        self.reporter.event(
            "step", step=t, epoch=epoch, loss=loss, lr=lr, images=self.batch_size, images_per_second=round(rate, 1),
            seconds={name: round(value, 6) for name, value in outcome.seconds.items()}, bytes_sent=sent, **facts, **health,
        )  # fmt: skip

        def line() -> str:
            mean = sum(self.recent) / len(self.recent)
            share = f"[{place + 1:5d}/{per_epoch} ({100 * (place + 1) // per_epoch:3d}%)]"
            speed = f"{total:.3f} s, {rate:.0f} img/s, exchange {outcome.seconds['exchange']:.3f} s"
            return f"Train: {epoch:3d} {share}  loss {loss:.4f} ({mean:.4f})  {speed}  lr {lr:.1e}"

        whole = place + 1 == per_epoch or t == self.facts.steps
        self.reporter.step(t, f"epoch {epoch}  loss {loss:.3f}  {rate:.0f} img/s", line, whole)

    def _end(self, t: int, loss: float, scores: Scores | None, seconds: float) -> Result:
        """Compare all ranks' weights, and close the log. Raises RunError on every rank if they differ."""
        self.watch.at("end", t)
        code = DONE if t >= self.facts.steps else STOPPED
        hashes = tuple(self.wire.gather_facts(self.state.sha256()))
        same = len(set(hashes)) == 1
        memory = sum(self.wire.gather_facts(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        images = (t - self.done) * self.batch_size
        self.reporter.event(
            "end", step=t, seconds=round(seconds, 3), images_per_second=round(images / seconds, 1),
            weights_sha256=list(hashes), peak_memory=memory, exit=code if same else RunError.exit_code,
        )  # fmt: skip
        if not same:
            raise agreed(
                RunError(f"step {t}: ranks hold different weights: {', '.join(each[:8] for each in hashes)}")
            )
        self.reporter.say(
            f"{'done:' if code == DONE else 'stopped by a signal at'} step {t}, {seconds:.1f} s, all ranks hold the same weights "
            f"(sha256 {hashes[0][:12]}), peak memory of all ranks {memory / 2**30:.2f} GiB, run in {self.folder}"
        )
        return Result(code, t, loss, scores.top1 if scores else None, hashes, self.folder)
