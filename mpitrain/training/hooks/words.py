"""What a run says: the header at its start, and a line of each step in the log and on the
terminal."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

from mpitrain import __version__
from mpitrain.job import slurm, toml
from mpitrain.job.config import split_from
from mpitrain.layers.layer import size

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World


class Words:
    """Writes each step on rank 0, beside the device's work on the step after it."""

    name = "words"

    def __init__(self, plan: Plan) -> None:
        self._per_epoch = plan.prepared.per_epoch
        self._losses: list[float] = []
        self._began: tuple[int, float] | None = None

    def due(self, progress: Progress) -> bool:
        return progress.last is not None

    def run(self, world: World, progress: Progress) -> Progress:
        if world.wire.ranks.rank == 0:
            if (progress.step - 1) % self._per_epoch == 0:
                self._losses = []
            self._losses.append(progress.loss)
            mean = sum(self._losses) / len(self._losses)
            left = self._left(progress.step, world.plan.steps, time.monotonic())
            world.local.log.defer(lambda: _say_step(world, progress, mean, left))
        return progress

    def _left(self, step: int, steps: int, now: float) -> str:
        """How long the rest takes if it goes on as until now, evaluations and checkpoints
        included."""
        if self._began is None:
            self._began = step, now
        first, began = self._began
        return clock((now - began) / (step - first) * (steps - step)) if step > first else ""


def clock(seconds: float) -> str:
    """Seconds as 0:59, 1:02:03 or 2 d 03:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def train_line(
    epoch: int, step: int, steps: int, loss: float, mean: float, speed: float, left: str
) -> str:
    """A step's line, of at most 80 columns. step, steps: of the epoch; mean: of its losses."""
    share = f"[{step:{len(str(steps))}d}/{steps}]"
    line = f"Train: {epoch:3d} {share} loss {loss:.4f} (mean {mean:.4f})  {speed:.0f} img/s"
    return f"{line}  {left} left" if left and left != "0:00" else line


def _say_step(world: World, progress: Progress, mean: float, left: str) -> None:
    plan, report, t = world.plan, progress.last, progress.step
    assert report is not None
    per_epoch, total = plan.prepared.per_epoch, report.seconds["total"]
    epoch, place = divmod(t - 1, per_epoch)
    speed = plan.batch_size / total
    coded = plan.exchange == "dynamic8" and world.wire.ranks.size > 1
    bound = {"error_bound": report.error_bound} if coded else {}
    norm = {} if report.gradient_norm is None else {"gradient_norm": report.gradient_norm}
    world.local.log.event(
        "step",
        step=t,
        epoch=epoch,
        loss=report.loss,
        lr=report.rate,
        images=plan.batch_size,
        images_per_second=round(speed, 1),
        seconds={name: round(value, 6) for name, value in report.seconds.items()},
        cpu_seconds=round(report.cpu_seconds, 6),
        bytes_sent=report.bytes_sent,
        **bound,
        **norm,
        **progress.notes,
    )

    def line() -> str:
        return train_line(epoch, place + 1, per_epoch, report.loss, mean, speed, left)

    whole = place + 1 == per_epoch or t == plan.steps
    brief = f"epoch {epoch}  loss {report.loss:.3f}  {speed:.0f} img/s"
    world.local.display.step(t, brief, line, whole)


def _split_words(world: World) -> str:
    """What --dense split has split, or why nothing; empty without it."""
    plan, ranks, own = world.plan, world.wire.ranks.size, world.local.graph.own_layout
    least = split_from(plan.run.dense)
    if least is None or ranks == 1:
        return ""
    if not own.slots:
        return f"--dense {plan.run.dense}: no dense layer has {least:,} weights or more"
    whole = sum(size(each.whole) for each in own.parameters.values())
    return (
        f"--dense split: each rank keeps 1/{ranks} of {', '.join(own.slots)}, {whole:,} weights in "
        "all"
    )


def say_header(world: World, said: str) -> None:
    """Say and log what runs where; said: of where the run starts. Collective."""
    plan, local, wire = world.plan, world.local, world.wire
    run, say, count = plan.run, local.display.say, wire.ranks.size
    cpu = local.device.kind == "cpu"
    held = f", cores {','.join(map(str, local.cores))}" if cpu else ""
    engine = "" if run.engine == "auto" else f", engine {local.device.engine}"
    device = f"{local.device.name} ({local.device.platform}){held}{engine}"
    devices = wire.agree.gather_facts(device)
    hosts = wire.agree.gather_facts(wire.ranks.host)
    if wire.ranks.rank:
        return
    restarts = slurm.restarts()
    versions = {
        "mpitrain": __version__,
        "python": platform.python_version(),
        "mpi": wire.ranks.library,
    }
    versions |= {name: version(name) for name in ("numpy", "pyopencl", "mpi4py")}
    exchange, graph, prepared = world.exchange, local.graph, plan.prepared
    settings = asdict(run) | {
        "exchange_chosen": plan.exchange,
        "exchange_reason": plan.reason,
        "coded_from": plan.coded_from,
        "coders": exchange.coder_count if exchange.codes else 0,
        "capacity": graph.capacity,
        "read_chosen": "local" if plan.reading.local else "root",
    }  # job/recipe.py knows these by name
    tables = {"run": settings, "versions": versions, "ranks": {"devices": devices, "hosts": hosts}}
    toml.write(plan.folder / "config.toml", tables)
    local.log.event(
        "start",
        network=plan.network.name,
        parameters=graph.count,
        ranks=count,
        devices=devices,
        batch_size=plan.batch_size,
        exchange=plan.exchange,
        update=run.update,
        versions=versions,
        step=plan.begun,
        steps=plan.steps,
        restarts=restarts,
    )
    test = f", {prepared.tests:,} test" if prepared.tests else ""
    divided = graph.capacity < world.feed.mine.stop - world.feed.mine.start
    say(
        f"mpitrain {__version__}: {plan.network.name}, {graph.count:,} parameters, on "
        f"{run.data} "
        f"({prepared.count:,} images{test}); batch {plan.batch_size} over {count} "
        f"rank{'s' * (count > 1)}" + (f" in sub-batches of {graph.capacity}" if divided else "")
    )
    shown = devices if run.verbose or count <= 4 else devices[:1]
    for rank, device in enumerate(shown):
        say(f"  rank {rank}: {device}" + (f" and {count - 1} more" if len(shown) < count else ""))
    if wire.ranks.local_size > local.host_cores and cpu:
        say(
            f"  {wire.ranks.local_size} ranks share {local.host_cores} cores of this host: they "
            "take turns"
        )
    if cpu and "Portable" in local.device.platform and run.device == "auto":
        say(
            "  PoCL computes, since Intel's runtime is not here; `pip install mpitrain[runtimes]` "
            "brings the faster one"
        )
    where = f", {exchange}" if str(exchange) else ""
    say(
        f"  {wire.ranks.library}; exchange {plan.exchange}{where} ({plan.reason}), update "
        f"{run.update}"
    )
    if words := plan.reading.words(count):
        say(f"  {words}")
    if words := _split_words(world):
        say(f"  {words}")
    if local.dataset:
        local.dataset.bad.tell(local.display, local.log)
    for words in filter(None, (local.log.lacks, said)):
        say(f"  {words}")
    if plan.begun:
        say(f"  goes on after step {plan.begun} of {plan.steps}")
    if restarts:
        say(f"  SLURM has started this job again: restart {restarts}")
