"""Run a training with 1, 2, 4, ... ranks and put the curve beside the paper's: curve.csv, curve.txt and curve.png."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

from mpitrain.report import DONE, FAILED, RunError, UserError

BATCH_SIZE = {"lenet": 120}
"""The paper's, where ours differs: it divides into 1, 2, 3, 4, 5, 6, 8 and 10 equal parts."""
STEPS = {"lenet": 40}
"""Steps to measure where nothing is said; other networks take seconds or minutes a step, and get OTHER_STEPS."""
OTHER_STEPS = 5


@dataclass(frozen=True)
class Point:
    """What was measured with one number of ranks. Times are seconds of a step on rank 0; the first step is left out, since it compiles."""

    ranks: int
    batch_size: int
    steps: int
    seconds: float
    """Median of a step."""
    fastest: float
    slowest: float
    parts: Mapping[str, float]
    """Mean seconds a step of compute, exchange (what compute does not hide) and wait (for images)."""
    bytes_sent: float
    """Mean bytes that rank 0 sent a step."""
    cores: int
    """Different CPU cores that all ranks together compute on; 0 where a device is no CPU."""
    where: str
    """Devices, exchange and MPI library, in words."""

    @property
    def images_per_second(self) -> float:
        """Of all ranks together."""
        return self.batch_size / self.seconds

    @property
    def exchange_share(self) -> float:
        """The part of a step's time that goes into the exchange and is not hidden."""
        return self.parts["exchange"] / max(sum(self.parts.values()), 1e-12)

    def speed_up(self, base: Point) -> float:
        """Against `base`, the point with the fewest ranks: how many times as fast."""
        return base.seconds / self.seconds

    def efficiency(self, base: Point) -> float:
        """Speed-up over the growth in ranks; 1 is ideal."""
        return self.speed_up(base) * base.ranks / self.ranks


@dataclass(frozen=True)
class Paper:
    """What the paper (arXiv 1702.01846, Figure 6) has for a network, and models of it: speed-up by number of clients."""

    source: str
    measured: Mapping[int, float]
    linear: bool = False
    models: Mapping[str, tuple[str, Callable[[int], float]]] | None = None
    """By name, the formula in words and as speed-up."""


COMPUTE, STAR, SHARE, LINK = 96.0, 2.50, 138.4, 110.7
"""VGG16 in the paper: s of compute a batch of 256 on one K80, s a client at the server, MB of 8-bit gradient, MB/s of the link."""


def star_seconds(ranks: int) -> float:
    """Seconds a step of VGG16 as in the paper: all clients' gradients and weights go through one server. T(N) = A/N + b*N."""
    return COMPUTE / ranks + STAR * ranks


def sharded_seconds(ranks: int) -> float:
    """The same devices and link, but each rank averages a shard of the gradient. T(N) = A/N + 2*S*(N-1)/(N*B)."""
    return COMPUTE / ranks + 2 * SHARE * (ranks - 1) / (ranks * LINK)


PAPER = {
    "lenet": Paper(
        "Figure 6 left: LeNet, batch 120, float32, 1 to n tablets that run a browser: nearly linear",
        {},
        linear=True,
    ),
    "vgg16": Paper(
        "Figure 6 right: VGG16, batch 256, 8 bits, one NVIDIA K80 a client, one server behind 1 Gbit/s: "
        "2.8x with 4, saturated with 8 (29 s a step, about 3.3x)",
        {4: 2.8, 8: 3.3},
        models={
            "star": (
                f"T(N) = {COMPUTE:.1f}/N + {STAR:.2f}*N s, all through one server: a model that fits the paper's times",
                lambda ranks: star_seconds(1) / star_seconds(ranks),
            ),
            "sharded": (
                f"T(N) = {COMPUTE:.1f}/N + 2*{SHARE}*(N-1)/(N*{LINK}) s, each rank averages a shard: same K80s and link, not measured",
                lambda ranks: sharded_seconds(1) / sharded_seconds(ranks),
            ),
        },
    ),
}


def measure(network: str, ranks: str, launcher: str, out: Path | None, options: Sequence[str]) -> None:
    """Train `network` with each number of ranks in turn and write the curve after each run. Checkpoints of the runs are not kept.

    launcher: how ranks are started, with {ranks} for their number. options: further ones of the training.
    Raises UserError before anything runs, RunError with a failed run's last words and exit code.
    """
    counts = parse_ranks(ranks)
    start = launch_words(launcher)
    training = training_options(network, options)
    _check_alone(os.environ)
    _check_plots()
    name = Path(network).stem
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = out or Path("runs") / f"scaling-{name}-{stamp}"
    if any((folder / each).exists() for each in ("curve.csv", *(f"ranks-{count}" for count in counts))):
        raise UserError(f"--out {folder}: there is a measurement in it already; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    typed = shlex.join(["mpitrain", "scaling", network, "--ranks", ranks, "--launcher", launcher, *options])
    points: list[Point] = []
    for count in counts:
        words = [word.replace("{ranks}", str(count)) for word in start]
        run = folder / f"ranks-{count}"
        words += [sys.executable, "-m", "mpitrain", network, "--out", str(run), "--quiet", *training]
        _run(words, run, count, _steps(training))
        points.append(read_point(run))
        (folder / "curve.csv").write_text(csv_text(name, points))
        (folder / "curve.txt").write_text(table(name, points) + f"command: {typed}\n")
        draw(name, points, folder / "curve.png")
        print(_count(count, "rank") + f": {summary(points[-1])}", flush=True)
    print("\n" + table(name, points) + f"written: {folder}/curve.csv, curve.txt, curve.png")


# -- what was asked for ----------------------------------------------------------------------------------------------------------


def parse_ranks(text: str) -> list[int]:
    """Numbers of ranks, fewest first, from "1,2,4". Raises UserError for what is none, for 0, and for one given twice."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise UserError(f"--ranks {text}: expected numbers from 1 up with commas between, such as 1,2,4")
    counts = sorted(int(word) for word in words)
    twice = [one for one, next_one in itertools.pairwise(counts) if one == next_one]
    if twice:
        raise UserError(f"--ranks {text}: {twice[0]} is given twice")
    return counts


def launch_words(launcher: str) -> list[str]:
    """The launcher's words. An mpirun or mpiexec beside this Python goes before others, for it is of the MPI that mpi4py loads.

    Raises UserError if {ranks} is missing or there is no such program.
    """
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise UserError(f"--launcher {launcher}: {error}") from None
    if not any("{ranks}" in word for word in words):
        raise UserError(
            f"--launcher {launcher}: {{ranks}} is missing, which stands for the number of ranks: mpirun -n {{ranks}}"
        )
    beside = Path(sys.executable).parent / words[0]
    if words[0] in ("mpirun", "mpiexec") and beside.is_file():
        words[0] = str(beside)
    if shutil.which(words[0]) is None:
        raise UserError(
            f"--launcher {launcher}: no program {words[0]}; `pip install mpitrain[runtimes]` brings mpirun"
        )
    return words


def training_options(network: str, options: Sequence[str]) -> list[str]:
    """The options given and, where they say nothing, a batch size and a number of steps. Raises UserError for too few steps."""
    training = list(options)
    if network in BATCH_SIZE and _value(options, "--batch-size") is None:
        training += ["--batch-size", str(BATCH_SIZE[network])]
    if _value(options, "--steps") is None and _value(options, "--epochs") is None:
        training += ["--steps", str(1 + STEPS.get(network, OTHER_STEPS))]
    steps = _steps(training)
    if steps is not None and steps < 2:
        raise UserError(
            f"--steps {steps}: at least 2 are needed, since the first one compiles and is left out"
        )
    return training


def _value(options: Sequence[str], name: str) -> str | None:
    """The last value of an option typed as `--name value` or `--name=value`."""
    found = None
    for place, word in enumerate(options):
        if word == name:
            found = options[place + 1] if place + 1 < len(options) else ""
        elif word.startswith(name + "="):
            found = word.partition("=")[2]
    return found


def _steps(options: Sequence[str]) -> int | None:
    """The number after --steps; None if there is none, or one that the training itself will refuse."""
    text = _value(options, "--steps")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _check_alone(environment: Mapping[str, str]) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if environment.get(name, "1") != "1":
            raise UserError("scaling starts the ranks by itself: run it without mpirun or srun")


def _check_plots() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            "scaling draws with matplotlib, which is not installed: pip install 'mpitrain[plots]'"
        ) from None


# -- one run ---------------------------------------------------------------------------------------------------------------------


def _run(words: Sequence[str], folder: Path, ranks: int, steps: int | None) -> None:
    """Run one training to its end, showing how far it is. Raises RunError with its last words if it does not end well."""
    errors = folder.parent / f"{folder.name}.stderr"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the ranks, too
    with errors.open("wb") as stderr:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            with _display(ranks, steps) as show:
                log = folder / "log.jsonl"
                while process.poll() is None:
                    time.sleep(0.2)
                    show(log)
        finally:
            _end(process)
            signal.signal(signal.SIGTERM, before)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    said = errors.read_text(errors="replace")
    # Launchers may return 0 for a broken job: only the log's last line is to be believed.
    ended = any(event["event"] == "end" and event["exit"] == DONE for event in _events(folder)[-1:])
    if process.returncode == DONE and ended:
        if not said.strip():
            errors.unlink()
        return
    more = f" (all of it: {errors})" if len(said.splitlines()) > 1 else ""
    failure = RunError(f"with {_count(ranks, 'rank')}: {last_words(said, process.returncode)}{more}")
    failure.exit_code = process.returncode if process.returncode > 0 else FAILED
    raise failure


def last_words(stderr: str, code: int) -> str:
    """The last line of a failed run's stderr; of mpitrain's own ones if there are, for launchers add theirs."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    own = [line.removeprefix("mpitrain: ") for line in lines if line.startswith("mpitrain: ")]
    own = own or [
        line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")
    ]  # wrong options, as click says it
    return (own or lines or [f"the run ended without a word, exit code {code}"])[-1]


@contextmanager
def _display(ranks: int, steps: int | None) -> Iterator[Callable[[Path], None]]:
    """A moving bar on a terminal, else nothing: call it with a run's log now and then."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(_count(ranks, "rank"), total=steps)
        place = 0

        def show(log: Path) -> None:
            nonlocal place
            if log.exists():
                with log.open("rb") as lines:
                    lines.seek(place)
                    new = lines.read()
                place += len(new)
                bar.advance(task, new.count(b'{"event": "step"'))

        yield show


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no ranks behind when this process is interrupted."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# -- what came out ---------------------------------------------------------------------------------------------------------------


def _events(folder: Path) -> list[dict[str, Any]]:
    log = folder / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def read_point(folder: Path) -> Point:
    """The point that a run directory stands for. Raises RunError if it has no step to measure."""
    config = tomllib.loads((folder / "config.toml").read_text())
    return point(_events(folder), config["ranks"]["hosts"])


def point(events: Sequence[Mapping[str, Any]], hosts: Sequence[str]) -> Point:
    """The point that the events of a log stand for. hosts: each rank's, NAME/N; the core numbers of one name are one host's."""
    start = next(event for event in events if event["event"] == "start")
    steps = [event for event in events if event["event"] == "step"][1:]
    if not steps:
        raise RunError(f"with {_count(start['ranks'], 'rank')}: no step to measure after the first one")
    totals = [event["seconds"]["total"] for event in steps]
    devices: list[str] = start["devices"]
    held = [re.search(r", cores ([\d,]+)$", device) for device in devices]
    cores = {
        (host.partition("/")[0], core)
        for host, found in zip(hosts, held, strict=True)
        if found
        for core in found[1].split(",")
    }
    kinds = dict.fromkeys(device.partition(", cores ")[0] for device in devices)
    return Point(
        ranks=start["ranks"],
        batch_size=start["batch_size"],
        steps=len(steps),
        seconds=statistics.median(totals),
        fastest=min(totals),
        slowest=max(totals),
        parts={
            part: statistics.fmean(event["seconds"][part] for event in steps)
            for part in ("compute", "exchange", "wait")
        },
        bytes_sent=statistics.fmean(event["bytes_sent"] for event in steps),
        cores=len(cores) if all(held) else 0,
        where=f"{', '.join(kinds)}; {start['versions']['mpi']}; exchange {start['exchange']}, update {start['update']}",
    )


def summary(one: Point) -> str:
    """A point in a line."""
    return f"{_seconds(one.seconds)} s a step ({_count(one.steps, 'step')}), {one.images_per_second:,.1f} images/s"


COLUMNS = (
    "ranks",
    "cores",
    "batch_size",
    "steps",
    "seconds",
    "fastest",
    "slowest",
    "images_per_second",
    "speed_up",
    "efficiency",
    "exchange_share",
    "bytes_sent",
    "paper_speed_up",
    "star_model",
    "sharded_model",
)


def csv_text(network: str, points: Sequence[Point]) -> str:
    """curve.csv: a header and a row a point, fewest ranks first. Empty: unknown here, or not in the paper."""
    base, paper = points[0], PAPER.get(network)
    models = (paper.models or {}) if paper else {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in points:
        of_models = [
            round(models[name][1](one.ranks), 3) if name in models else "" for name in ("star", "sharded")
        ]
        writer.writerow(
            [
                one.ranks,
                one.cores or "",
                one.batch_size,
                one.steps,
                *(round(seconds, 6) for seconds in (one.seconds, one.fastest, one.slowest)),
                round(one.images_per_second, 2),
                round(one.speed_up(base), 4),
                round(one.efficiency(base), 4),
                round(one.exchange_share, 4),
                round(one.bytes_sent),
                paper.measured.get(one.ranks, "") if paper else "",
                *of_models,
            ]
        )
    return text.getvalue()


def table(network: str, points: Sequence[Point]) -> str:
    """curve.txt: the points beside the paper's, and what to know about both."""
    base, paper = points[0], PAPER.get(network)
    models = (paper.models or {}) if paper else {}
    headings = [
        "ranks",
        "cores",
        "s/step",
        "fastest",
        "slowest",
        "images/s",
        "speed-up",
        "efficiency",
        "exchange",
    ]
    headings += ["MB sent/step", *(["paper"] if paper else []), *models]
    rows = [headings]
    for one in points:
        row = [str(one.ranks), str(one.cores or "-")]
        row += [_seconds(seconds) for seconds in (one.seconds, one.fastest, one.slowest)]
        row += [f"{one.images_per_second:,.1f}", f"{one.speed_up(base):.2f}", f"{one.efficiency(base):.0%}"]
        row += [f"{one.exchange_share:.0%}", f"{one.bytes_sent / 1e6:,.2f}"]
        if paper:
            row.append(f"~{one.ranks}" if paper.linear else str(paper.measured.get(one.ranks, "-")))
        row += [f"{speed_up(one.ranks):.1f}" for _, speed_up in models.values()]
        rows.append(row)
    widths = [max(len(row[place]) for row in rows) for place in range(len(headings))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        f"{network}, batch {base.batch_size} over all ranks, {_count(base.steps, 'step')} a run after the first: "
        "median seconds a step, and the bytes that rank 0 sends"
    ]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.append(f"here, with {_count(points[-1].ranks, 'rank')}: {points[-1].where}")
    if base.ranks > 1:
        lines.append(f"speed-up: against {base.ranks} ranks, the fewest that were measured")
    if paper:
        lines.append(f"paper (arXiv 1702.01846), {paper.source}")
    lines += [f"{name}: {words}" for name, (words, _) in models.items()]
    lines += [line for line in [core_note(points)] if line]
    return "\n".join(lines) + "\n"


def core_note(points: Sequence[Point]) -> str:
    """A warning where cores do not grow with the ranks, so that the speed-up cannot either; else nothing."""
    base = points[0]
    short = [
        one for one in points if one.cores and base.cores and one.cores * base.ranks < base.cores * one.ranks
    ]
    if not short:
        return ""
    if all(one.cores <= base.cores for one in short):
        found = (
            f"no speed-up is to be expected: {_listed(one.ranks for one in short)} ranks share the "
            f"{_count(base.cores, 'core')} that {_count(base.ranks, 'rank')} already had"
        )
    else:
        found = "cores do not grow with the ranks; the speed-up can be at most " + ", ".join(
            f"{one.cores / base.cores:.1f} with {one.ranks} ranks ({_count(one.cores, 'core')})"
            for one in short
        )
    return (
        f"note: {found}. The table shows what the exchange costs. To give each rank a core of its own (while they last): "
        "--launcher 'mpirun -bind-to core -n {ranks}' with MPICH, 'mpirun --bind-to core -n {ranks}' with Open MPI"
    )


def draw(network: str, points: Sequence[Point], path: Path) -> None:
    """curve.png: speed-up beside the paper's on the left, where a step's time goes on the right."""
    from matplotlib.figure import Figure

    base, paper = points[0], PAPER.get(network)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    here = [one.ranks for one in points]
    most = max([*here, *(paper.measured if paper else [])])
    every = range(base.ranks, most + 1)
    label = "linear" + (", as the paper's LeNet on tablets is nearly" if paper and paper.linear else "")
    left.plot([base.ranks, most], [1, most / base.ranks], color="0.6", linestyle="--", label=label)
    if paper:
        for (name, (_, speed_up)), style in zip((paper.models or {}).items(), ("-", "-."), strict=False):
            words = {
                "star": "model of the paper's star, K80s",
                "sharded": "model with shards, same K80s and link",
            }
            scale = speed_up(base.ranks)
            left.plot(
                every, [speed_up(n) / scale for n in every], "C1" + style, linewidth=1, label=words[name]
            )
        if paper.measured and base.ranks == 1:
            left.plot(*zip(*paper.measured.items(), strict=True), "C1s", label="paper, K80s, 8 bits")
    left.plot(here, [one.speed_up(base) for one in points], "C0o-", label="measured here")
    left.set(
        xlabel="ranks",
        ylabel=f"speed-up against {_count(base.ranks, 'rank')}",
        title=f"{network}, batch {base.batch_size}",
    )
    left.set_xticks(sorted({*here, *(paper.measured if paper else [])}))
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    foot = [0.0] * len(points)
    for part, color in (("compute", "C0"), ("exchange", "C3"), ("wait", "0.6")):
        heights = [one.parts[part] for one in points]
        right.bar([str(ranks) for ranks in here], heights, bottom=foot, color=color, width=0.6, label=part)
        foot = [low + high for low, high in zip(foot, heights, strict=True)]
    right.set(xlabel="ranks", ylabel="seconds a step (mean, rank 0)", title="where the time goes")
    right.set_ylim(top=1.25 * max(foot))
    right.legend(frameon=False, ncols=3, loc="upper center")
    where = points[-1].where.partition(" (/")[0]
    figure.supxlabel(
        where + ("" if not core_note(points) else "; ranks share cores"), fontsize=8, color="0.4"
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _seconds(seconds: float) -> str:
    """Three or four digits that count."""
    return f"{seconds:.4f}" if seconds < 1 else f"{seconds:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _listed(numbers: Iterator[int]) -> str:
    words = [str(number) for number in numbers]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
