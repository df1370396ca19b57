"""Training from the first rank's hello to the last checkpoint: set up, loop, report, evaluate, save."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain import __version__, checkpoint, models
from mpitrain.checkpoint import Entry
from mpitrain.config import Run, interval, numbers
from mpitrain.data import augment
from mpitrain.data.order import steps_per_epoch
from mpitrain.data.share import parts
from mpitrain.data.source import Dataset, open_source
from mpitrain.evaluate import Scores, score
from mpitrain.exchange.choice import choose
from mpitrain.exchange.exchange import Exchange, needs_master
from mpitrain.exchange.wire import Wire, agreed, connect
from mpitrain.feed import Feed, Plan
from mpitrain.graph import Graph
from mpitrain.inject import Fault
from mpitrain.plan import infer_shapes, make_plan
from mpitrain.report import DONE, STOPPED, Reporter, RunError, UserError
from mpitrain.runtime.device import Device, open_device
from mpitrain.runtime.platforms import available_memory, share_of_cores
from mpitrain.sgd import MomentumSgd, learning_rate
from mpitrain.step import Outcome, Work, step
from mpitrain.watchdog import Watchdog

PIECE = 1 << 22
"""Values of a vector that are brought to the host at once for a checkpoint or a hash (16 MiB)."""

_watch: Watchdog | None = None


def watching() -> Watchdog | None:
    """The watchdog of the training in this process, which knows what is going on."""
    return _watch


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    exit_code: int
    step: int
    loss: float
    """Mean over the last step's batch; NaN if there was no step."""
    top1: float | None
    """On the test images, after the last step; None without any."""
    weights_sha256: tuple[str, ...]
    """One hash a rank, in rank order, of all parameters as little-endian float32 in network order."""
    folder: Path


def train(run: Run) -> Result:
    """Train a network on all ranks of this job. Raises UserError, on every rank alike, for a run that cannot be."""
    global _watch
    wire = connect()
    fault = wire.together(lambda: Fault(run.inject, wire.rank))
    wire.delay = fault.delay
    _watch = Watchdog(wire.rank, run.stall_seconds, wire.abort)
    try:
        return _Training(run, wire, _watch, fault).go()
    finally:
        _watch.stop()
        _watch = None


class _Training:
    """The parts of a run, made in the order in which they are needed."""

    def __init__(self, run: Run, wire: Wire, watch: Watchdog, fault: Fault) -> None:
        self.wire, self.watch, self.fault = wire, watch, fault
        watch.at("setup")
        self.stopped: list[int] = []
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, _: self.stopped.append(number))
        self.dataset: Dataset | None = None
        facts = wire.from_root(lambda: self._look(run))
        self.run = replace(run, **facts["run"])
        run = self.run
        self.count, self.tests = facts["count"], facts["tests"]
        self.network = models.load(
            run.network, tuple(facts["shape"]), facts["classes"], dropout=not run.no_dropout
        )
        self.per_epoch, self.steps = facts["per_epoch"], facts["steps"]
        self.folder = Path(facts["folder"])
        fault("setup", 0)
        self.device = self._open_device()
        watch.at("compile")
        fault("compile", 0)
        self.mine = parts(_known(run.batch_size), wire.size)[wire.rank]
        capacity = run.sub_batch or self._sub_batch(self.mine.stop - self.mine.start)
        self.graph = wire.together(lambda: Graph(self.device, self.network, capacity))
        self.graph.normalise(np.array(facts["mean"], np.float32), np.array(facts["std"], np.float32))
        self.kind, self.why = choose(run.exchange, wire)
        updates = wire.rank == 0 or run.update == "replicated"
        graph = self.graph
        own_master = needs_master(wire.rank, wire.size, self.kind, run.update)
        self.master = self.device.zeros(graph.weights.shape) if own_master else graph.weights
        decay = _known(run.weight_decay)
        self.sgd = MomentumSgd(self.device, self.master, run.momentum, decay) if updates else None
        self.exchange = Exchange(
            wire, self.device, graph.weights, graph.gradient, graph.buckets, self.kind, run.update,
            self.sgd.update if self.sgd else _nothing, self.master if own_master else None,
        )  # fmt: skip
        ways = augment.parse(run.augment)
        plan = Plan(self.count, tuple(facts["shape"]), facts["dtype"], _known(run.batch_size), run.seed, ways)
        self.feed = Feed(wire, plan, self.dataset.train if self.dataset else None)
        self.first = 0
        wire.together(self._begin_weights)
        self._spread_weights()

    # -- set-up ------------------------------------------------------------------------------------------------------------------

    def _look(self, run: Run) -> dict[str, Any]:
        """On rank 0: check the run against the network, the data and the disk. What every rank must know, as JSON can hold it."""
        if run.precision != "float32":
            raise UserError(
                f"--precision {run.precision}: no device here computes in it; float32 is what there is"
            )
        if run.balance != "equal":
            raise UserError(f"--balance {run.balance}: not built yet; equal is what there is")
        first = models.load(run.network, None, run.classes, dropout=not run.no_dropout)
        run = run.completed(dict(first.defaults))
        augment.parse(run.augment)
        self.dataset = open_source(
            _known(run.data), shape_hint=_image(first.input_shape), classes=run.classes, seed=run.seed
        )
        data = self.dataset
        batch_size = _known(run.batch_size)
        parts(batch_size, self.wire.size)
        per_epoch = steps_per_epoch(len(data.train), batch_size)
        steps = min(
            run.steps if run.steps is not None else 1 << 62,
            run.epochs * per_epoch if run.epochs is not None else 1 << 62,
        )
        network = models.load(run.network, data.shape, data.classes, dropout=not run.no_dropout)
        infer_shapes(network)
        mean = numbers(run.mean, data.shape[0], "--mean") if run.mean else data.mean.tolist()
        std = numbers(run.std, data.shape[0], "--std") if run.std else data.std.tolist()
        folder = self._folder(run)
        keep = ("data", "batch_size", "weight_decay", "steps", "epochs")
        return {
            "run": {name: getattr(run, name) for name in keep},
            "shape": data.shape,
            "classes": data.classes,
            "dtype": str(data.train.dtype),
            "count": len(data.train),
            "tests": len(data.test) if data.test else 0,
            "mean": mean,
            "std": std,
            "per_epoch": per_epoch,
            "steps": steps,
            "folder": str(folder),
        }

    def _folder(self, run: Run) -> Path:
        """The run directory: --out, the one that is resumed, or a new one named by network and time."""
        if run.out is None and run.resume not in (None, "newest"):
            return Path(_known(run.resume)).resolve().parent.parent
        if run.out is None and run.resume:
            raise UserError("--resume: say which run with --out DIR or --resume PATH")
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path(run.out) if run.out else Path("runs") / f"{Path(run.network).stem}-{stamp}"
        if (folder / "log.jsonl").exists() and not run.resume:
            raise UserError(
                f"--out {folder}: there is a run in it already; --resume goes on with it, another --out starts anew"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {folder} cannot be made: {error.strerror}") from None
        return folder

    def _open_device(self) -> Device:
        wire = self.wire
        affinity = (
            sorted(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else list(range(os.cpu_count() or 1))
        )
        everyone = wire.gather_facts([wire.host, affinity])
        neighbours = [cores for host, cores in everyone if host == wire.host]
        self.host_cores = len({core for cores in neighbours for core in cores})
        self.cores = share_of_cores(neighbours, wire.local_rank)
        device: Device = wire.together(lambda: open_device(self.run.device, wire.local_rank, self.cores))
        return device

    def _sub_batch(self, part: int) -> int:
        """As many images of this rank's part as its share of memory holds, beside the vectors of weights."""
        shapes = infer_shapes(self.network)
        one, two = (make_plan(self.network, shapes, n, training=True).nbytes for n in (1, 2))
        memory = available_memory() if self.device.kind == "cpu" else self.device.memory
        sharing = self.wire.local_size if self.device.kind == "cpu" else 1
        room = 0.5 * memory / sharing
        largest = max(
            storage.nbytes(1) for storage in make_plan(self.network, shapes, 1, training=True).storages
        )
        fits = min(int(room / max(1, two - one)), self.device.largest // max(1, largest))
        return max(1, min(part, fits))

    def _begin_weights(self) -> None:
        """On rank 0: the master weights the run starts from, drawn, given by --init, or of a checkpoint."""
        if self.run.resume:
            folder = self.folder
            path = Path(self.run.resume) if self.run.resume != "newest" else None
            found = self.wire.from_root(lambda: str(path or checkpoint.newest(folder)))
            self._resume(Path(found))
        elif self.wire.rank == 0:
            self.master.write(self.graph.layout.initial(self.run.seed))
            if self.run.init:
                self._init(Path(self.run.init))

    def _init(self, path: Path) -> None:
        with checkpoint.Reader(path) as reader:
            taken, missing = [], []
            for name, slot in self.graph.layout.slots.items():
                if name in reader.names and reader.shape(name) == slot.shape:
                    self.master.part(slot.start, slot.stop).write(reader.read(name).astype(np.float32))
                    taken.append(name)
                else:
                    missing.append(name)
            for name, slot in self.graph.statistics_layout.slots.items():
                if name in reader.names and reader.shape(name) == slot.shape:
                    self.graph.statistics.part(slot.start, slot.stop).write(
                        reader.read(name).astype(np.float32)
                    )
            if not taken:
                raise UserError(f"--init {path}: no tensor in it has a name and shape of {self.network.name}")
            self.init_report = (
                f"--init {path}: {len(taken)} tensors taken; drawn anew: {', '.join(missing) or 'none'}"
            )

    init_report = ""

    def _spread_weights(self) -> None:
        """Rank 0's weights and statistics to every rank, bit for bit."""
        if self.wire.rank == 0 and self.master is not self.graph.weights and not self.run.resume:
            self.graph.weights.copy_from(self.master)
        for vector in (self.graph.weights, self.graph.statistics):
            if vector.size:
                with vector.host(write=self.wire.rank > 0) as host:
                    self.wire.broadcast(host)

    # -- the loop ----------------------------------------------------------------------------------------------------------------

    def go(self) -> Result:
        wire, run, watch = self.wire, self.run, self.watch
        reporter = Reporter(self.folder if wire.rank == 0 else None, run.json, run.quiet)
        begin = time.perf_counter()
        self._header(reporter)
        checkpoint_every = interval(run.checkpoint_every, self.per_epoch, "--checkpoint-every")
        evaluate_every = interval(run.evaluate_every, self.per_epoch, "--evaluate-every")
        work = Work(self.feed, self.graph, self.exchange, watch, self.fault, _known(run.batch_size), run.seed)
        reporter.begin(self.first, self.steps)
        t, loss, scores, saved, images = self.first, math.nan, None, -1, 0
        mean_loss: list[float] = []
        made_up = str(run.data).startswith(
            "synthetic"
        )  # its score says nothing, and may take longer than the run
        while t < self.steps and not self.stop_agreed:
            if self.sgd:
                self.sgd.rate = learning_rate(t, self.steps, run.lr, run.schedule, run.warmup)
            sent = wire.bytes_sent
            outcome = step(work, t, more=t + 1 < self.steps)
            loss, bound = self._agree(outcome, t)
            t += 1
            images += _known(run.batch_size)
            mean_loss = [*mean_loss, loss][-100:]
            self._log_step(reporter, outcome, t, loss, bound, wire.bytes_sent - sent, mean_loss)
            if t % evaluate_every == 0 or (t == self.steps and not made_up):
                scores = self._evaluate(reporter, t)
            if t % checkpoint_every == 0 and t < self.steps:
                self._save(reporter, t)
                saved = t
        if saved != t:
            self._save(reporter, t)
        stopped = self.stop_agreed and t < self.steps
        hashes = tuple(wire.gather_facts(self._sha256()))
        seconds = time.perf_counter() - begin
        code = STOPPED if stopped else DONE
        reporter.event(
            "end",
            step=t,
            seconds=round(seconds, 3),
            images_per_second=round(images / seconds, 1),
            weights_sha256=list(hashes),
            exit=code,
        )
        memory = sum(wire.gather_facts(peak_memory()))
        agree = "all ranks hold the same weights" if len(set(hashes)) == 1 else "RANKS HOLD DIFFERENT WEIGHTS"
        reporter.say(
            f"{'stopped by a signal at' if stopped else 'done:'} step {t}, {seconds:.1f} s, {agree} (sha256 {hashes[0][:12]}), "
            f"peak memory of all ranks {memory / 2**30:.2f} GiB, run in {self.folder}"
        )
        reporter.close()
        if len(set(hashes)) > 1:
            raise agreed(
                RunError(
                    f"ranks hold different weights after step {t}: {', '.join(each[:8] for each in hashes)}"
                )
            )
        return Result(code, t, loss, scores.top1 if scores else None, hashes, self.folder)

    stop_agreed = False

    def _agree(self, outcome: Outcome, t: int) -> tuple[float, float]:
        """All ranks learn the batch's mean loss, the error bound, and whether a signal asks for the end. Raises on a loss that is none."""
        self.watch.at("agree", t)
        found = outcome.exchange
        table = self.wire.table(
            np.array([outcome.loss, found.error_bound, float(bool(self.stopped)), float(not found.finite)])
        )
        loss = float(table[:, 0].sum()) / _known(self.run.batch_size)
        self.stop_agreed = bool(table[:, 2].any())
        if not math.isfinite(loss):
            raise agreed(
                RunError(
                    f"step {t + 1}: the loss is {loss}; a smaller --lr (now {self.run.lr:g}) or a --warmup may help"
                )
            )
        if table[:, 3].any():
            raise agreed(
                RunError(f"step {t + 1}: the gradient is not finite; a smaller --lr or a --warmup may help")
            )
        return loss, float(table[:, 1].max())

    def _evaluate(self, reporter: Reporter, t: int) -> Scores | None:
        if not self.tests:
            return None
        self.watch.at("evaluate", t)
        self.fault("evaluate", t)
        self._average_statistics()
        found = score(
            self.wire,
            self.graph,
            self.dataset.test if self.dataset else None,
            self.tests,
            lambda: self.watch.at("evaluate", t),
        )
        reporter.event(
            "evaluate", step=t, loss=found.loss, top1=found.top1, top5=found.top5, images=found.images
        )
        reporter.say(
            f"Test:  step {t:6d}  loss {found.loss:.4f}  top-1 {found.top1:.4f}  top-5 {found.top5:.4f}  ({found.images} images)"
        )
        return found

    def _average_statistics(self) -> None:
        """Running means and variances, which every rank measured on its own images, become their average on all ranks."""
        if self.graph.statistics.size and self.wire.size > 1:
            with self.graph.statistics.host(write=True) as host:
                self.wire.allreduce(host)
                host /= np.float32(self.wire.size)

    # -- words -------------------------------------------------------------------------------------------------------------------

    def _header(self, reporter: Reporter) -> None:
        wire, run = self.wire, self.run
        held = f", cores {','.join(map(str, self.cores))}" if self.device.kind == "cpu" else ""
        devices = wire.gather_facts(f"{self.device.name} ({self.device.platform}){held}")
        hosts = wire.gather_facts(wire.host)
        versions = {"mpitrain": __version__, "python": platform.python_version(), "mpi": wire.library}
        versions |= {name: version(name) for name in ("numpy", "pyopencl", "mpi4py")}
        if wire.rank:
            return
        settings = asdict(run) | {"exchange_chosen": self.kind, "capacity": self.graph.capacity}
        _write_toml(
            self.folder / "config.toml",
            {"run": settings, "versions": versions, "ranks": {"devices": devices, "hosts": hosts}},
        )
        reporter.event(
            "start", network=self.network.name, parameters=self.graph.layout.count, ranks=wire.size, devices=devices,
            batch_size=run.batch_size, exchange=self.kind, update=run.update, versions=versions, step=self.first,
        )  # fmt: skip
        test = f", {self.tests:,} test" if self.tests else ""
        sub = (
            ""
            if self.graph.capacity >= self.mine.stop - self.mine.start
            else f" in sub-batches of {self.graph.capacity}"
        )
        reporter.say(
            f"mpitrain {__version__}: {self.network.name}, {self.graph.layout.count:,} parameters, on {run.data} "
            f"({self.count:,} images{test}); batch {run.batch_size} over {wire.size} rank{'s' * (wire.size > 1)}{sub}"
        )
        shown = devices if run.verbose or (len(set(devices)) > 1 and wire.size <= 4) else devices[:1]
        for rank, device in enumerate(shown):
            others = f" and {wire.size - 1} like it" if len(shown) == 1 and wire.size > 1 else ""
            reporter.say(f"  rank {rank}: {device}{others}")
        if wire.local_size > self.host_cores and self.device.kind == "cpu":
            reporter.say(
                f"  {wire.local_size} ranks share {self.host_cores} cores of this host: they take turns"
            )
        reporter.say(f"  {wire.library}; exchange {self.kind} ({self.why}), update {run.update}")
        if self.init_report:
            reporter.say(f"  {self.init_report}")
        if self.first:
            reporter.say(f"  goes on after step {self.first} of {self.steps}")
        if self.device.kind == "cpu" and "Portable" in self.device.platform and run.device == "auto":
            reporter.say(
                "  PoCL computes, since Intel's runtime is not here; `pip install mpitrain[runtimes]` brings the faster one"
            )

    def _log_step(
        self,
        reporter: Reporter,
        outcome: Outcome,
        t: int,
        loss: float,
        bound: float,
        sent: int,
        recent: list[float],
    ) -> None:
        size, run = _known(self.run.batch_size), self.run
        epoch, place = divmod(t - 1, self.per_epoch)
        seconds = {name: round(value, 6) for name, value in outcome.seconds.items()}
        rate = size / outcome.seconds["total"]
        lr = learning_rate(t - 1, self.steps, run.lr, run.schedule, run.warmup)
        facts: dict[str, Any] = {"error_bound": bound} if self.exchange.residuals() else {}
        reporter.event(
            "step", step=t, epoch=epoch, loss=loss, lr=lr, images=size, images_per_second=round(rate, 1), seconds=seconds,
            bytes_sent=sent, **facts,
        )  # fmt: skip

        def line() -> str:
            mean = sum(recent) / len(recent)
            return (
                f"Train: {epoch:3d} [{place + 1:5d}/{self.per_epoch} ({100 * (place + 1) // self.per_epoch:3d}%)]  loss {loss:.4f} ({mean:.4f})  "
                f"{outcome.seconds['total']:.3f} s, {rate:.0f} img/s, exchange {outcome.seconds['exchange']:.3f} s  lr {lr:.1e}"
            )

        brief = f"epoch {epoch}  loss {loss:.3f}  {rate:.0f} img/s"
        reporter.step(t, brief, line, whole=place + 1 == self.per_epoch or t == self.steps)

    # -- checkpoints --------------------------------------------------------------------------------------------------------------

    def _save(self, reporter: Reporter, t: int) -> None:
        """Collective: rank 0 writes, the others send it their residuals when their turn is there."""
        begin = time.perf_counter()
        self.watch.at("checkpoint", t)
        self.fault("checkpoint", t)
        self._average_statistics()
        path = checkpoint.path_of(self.folder / "checkpoints", t)
        entries = list(self._entries())
        if self.wire.rank:
            for entry in entries:
                for _ in entry.pieces():
                    pass
            return
        settings = {
            "network": models.netfile.encode(self.network),
            "name": self.network.name,
            "step": t,
            "samples": t * _known(self.run.batch_size),
            "run": asdict(self.run),
            "mean": self.graph.normal[0].tolist(),
            "std": self.graph.normal[1].tolist(),
            "classes": list(self.dataset.class_names) if self.dataset else [],
            "ranks": self.wire.size,
            "exchange": self.kind,
        }
        checkpoint.write(path, entries, {"mpitrain": json.dumps(settings)})
        checkpoint.prune(path.parent)
        reporter.event("checkpoint", step=t, path=str(path), seconds=round(time.perf_counter() - begin, 3))

    def _entries(self) -> Iterator[Entry]:
        """Every tensor of a checkpoint; on ranks other than 0 those they must send, whose pieces send them."""
        wire, graph = self.wire, self.graph
        if wire.rank == 0:
            for name, slot in graph.layout.slots.items():
                yield Entry(
                    name, slot.shape, partial(_pieces, graph.weights, slot.start, slot.stop, self.watch)
                )
            for name, slot in graph.statistics_layout.slots.items():
                yield Entry(
                    name, slot.shape, partial(_pieces, graph.statistics, slot.start, slot.stop, self.watch)
                )
            if self.sgd:
                for name, slot in graph.layout.slots.items():
                    yield Entry(
                        f"momentum/{name}",
                        slot.shape,
                        partial(_pieces, self.sgd.velocity, slot.start, slot.stop, self.watch),
                    )
            if self.master is not graph.weights:
                yield Entry(
                    "state/master",
                    self.master.shape,
                    partial(_pieces, self.master, 0, self.master.size, self.watch),
                )
        for name, vector in self.exchange.residuals().items():
            sizes = wire.gather_facts(vector.size)
            for rank, size in enumerate(sizes):
                if not size:
                    continue
                if rank == wire.rank:
                    pieces = partial(_pieces, vector, 0, size, self.watch)
                    yield Entry(
                        f"state/residual/{name}/{rank}",
                        (size,),
                        pieces if rank == 0 else partial(self._send_pieces, pieces),
                    )
                elif wire.rank == 0:
                    yield Entry(
                        f"state/residual/{name}/{rank}", (size,), partial(self._receive_pieces, size, rank)
                    )

    def _send_pieces(
        self, pieces: Callable[[], Iterator[NDArray[np.float32]]]
    ) -> Iterator[NDArray[np.float32]]:
        for piece in pieces():
            self.wire.send(piece, 0)
            yield piece

    def _receive_pieces(self, size: int, source: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, size, PIECE):
            piece = np.empty(min(PIECE, size - start), np.float32)
            self.wire.receive(piece, source)
            self.watch.at("checkpoint")
            yield piece

    def _resume(self, path: Path) -> None:
        """Every rank reads what is its own of a checkpoint that all can open."""
        with checkpoint.Reader(path) as reader:
            settings = reader.settings()
            self._check_same(path, settings, reader)
            rank, graph = self.wire.rank, self.graph
            same_job = settings["ranks"] == self.wire.size and settings["exchange"] == self.kind
            residuals = self.exchange.residuals()
            if residuals and not same_job:
                raise UserError(
                    f"--resume {path}: saved by {settings['ranks']} ranks with exchange {settings['exchange']}, "
                    f"this job has {self.wire.size} with {self.kind}; coded runs go on only with the same"
                )
            for name, slot in graph.layout.slots.items():
                graph.weights.part(slot.start, slot.stop).write(reader.read(name))
                if self.sgd:
                    self.sgd.velocity.part(slot.start, slot.stop).write(reader.read(f"momentum/{name}"))
            for name, slot in graph.statistics_layout.slots.items():
                graph.statistics.part(slot.start, slot.stop).write(reader.read(name))
            if self.master is not graph.weights:
                self.master.write(reader.read("state/master"))
            if residuals:
                kept = {
                    name: reader.read(f"state/residual/{name}/{rank}")
                    for name, each in residuals.items()
                    if each.size
                }
                empty = {name: np.zeros(0, np.float32) for name, each in residuals.items() if not each.size}
                self.exchange.restore({**kept, **empty}, int(settings["step"]))
            self.first = int(settings["step"])

    def _check_same(self, path: Path, settings: dict[str, Any], reader: checkpoint.Reader) -> None:
        """Raise UserError unless the checkpoint is of this network and this order of images."""
        for name, slot in self.graph.layout.slots.items():
            if name not in reader.names:
                raise UserError(
                    f"--resume {path}: a checkpoint of {settings['name']}, it has no {name} of {self.network.name}"
                )
            if reader.shape(name) != slot.shape:
                raise UserError(
                    f"--resume {path}: {name} is {reader.shape(name)} there, {self.network.name} needs {slot.shape}"
                )
        was = settings["run"]
        for name in ("batch_size", "seed"):
            if was[name] != getattr(self.run, name):
                raise UserError(
                    f"--resume {path}: its run had {name} {was[name]}, this one has {getattr(self.run, name)}; the images' order depends on it"
                )

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for slot in self.graph.layout.slots.values():
            for piece in _pieces(self.graph.weights, slot.start, slot.stop, self.watch):
                digest.update(piece.astype("<f4").tobytes())
        return digest.hexdigest()


def _pieces(vector: Any, start: int, stop: int, watch: Watchdog) -> Iterator[NDArray[np.float32]]:
    """A range of a device vector in host arrays of bearable size."""
    for at in range(start, stop, PIECE):
        watch.at(watch.phase)
        yield vector.part(at, min(at + PIECE, stop)).download()


def _nothing(start: int, stop: int, mean: Any) -> None:
    """What ranks that do not update do with a mean."""


def _known(value: Any) -> Any:
    """A setting that `Run.completed` has filled in."""
    assert value is not None
    return value


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    c, h, w = shape
    return c, h, w


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write_toml(path: Path, tables: dict[str, dict[str, Any]]) -> None:
    lines = []
    for table, facts in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in facts.items() if value is not None]
        lines.append("")
    path.write_text("\n".join(lines))
