"""Run a training with 1, 2, 4, ... ranks, one after the other, and write the curve (curve.py) after
each."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpitrain.commands.curve import (
    Point,
    check_plots,
    counted,
    csv_text,
    draw,
    point,
    summary,
    table,
)
from mpitrain.job import toml
from mpitrain.job.config import whole
from mpitrain.job.errors import DONE, FAILED, RunError, UserError
from mpitrain.job.run_folder import make_new

BATCH_SIZE = {"lenet": 120}
"""The paper's, where ours differs: it divides into 1, 2, 3, 4, 5, 6, 8 and 10 equal parts."""
STEPS = {"lenet": 40}
"""Steps to measure where nothing is said; other networks take seconds or minutes a step, and get
OTHER_STEPS."""
OTHER_STEPS = 5


def measure(
    network: str, ranks: str, launcher: str, out: Path | None, options: Sequence[str]
) -> None:
    """Train `network` with each number of ranks in turn and write the curve after each run.
    Checkpoints of the runs are not kept.

    launcher: how ranks are started, with {ranks} for their number. options: further ones of the
    training. Raises UserError before anything runs, RunError with a failed run's last words and
    exit code.
    """
    counts = parse_ranks(ranks)
    start = launch_words(launcher)
    training = training_options(network, options)
    _check_alone(os.environ)
    check_plots()
    name = Path(network).stem
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = out or make_new(Path("runs") / f"scaling-{name}-{stamp}")
    if any(
        (folder / each).exists() for each in ("curve.csv", *(f"ranks-{count}" for count in counts))
    ):
        raise UserError(f"--out {folder}: there is a measurement in it already; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    typed = shlex.join(
        ["mpitrain", "scaling", network, "--ranks", ranks, "--launcher", launcher, *options]
    )
    points: list[Point] = []
    for count in counts:
        words = [word.replace("{ranks}", str(count)) for word in start]
        run = folder / f"ranks-{count}"
        words += [
            sys.executable,
            "-m",
            "mpitrain",
            network,
            "--out",
            str(run),
            "--quiet",
            *training,
        ]
        _run(words, run, count, _steps(training))
        points.append(read_point(run))
        (folder / "curve.csv").write_text(csv_text(name, points))
        (folder / "curve.txt").write_text(table(name, points) + f"command: {typed}\n")
        draw(name, points, folder / "curve.png")
        print(counted(count, "rank") + f": {summary(points[-1])}", flush=True)
    print("\n" + table(name, points) + f"written: {folder}/curve.csv, curve.txt, curve.png")


# -- what was asked for
# --------------------------------------------------------------------------------------------------


def parse_ranks(text: str) -> list[int]:
    """Numbers of ranks, fewest first, from "1,2,4". Raises UserError for what is none, for 0, and
    for one given twice."""
    found = [whole(word.strip()) for word in text.split(",")]
    counts = sorted(count for count in found if count)
    if len(counts) < len(found):
        raise UserError(
            f"--ranks {text}: expected numbers from 1 up with commas between, such as 1,2,4"
        )
    twice = [one for one, next_one in itertools.pairwise(counts) if one == next_one]
    if twice:
        raise UserError(f"--ranks {text}: {twice[0]} is given twice")
    return counts


def launch_words(launcher: str) -> list[str]:
    """The launcher's words. An mpirun or mpiexec beside this Python goes before others, for it is
    of the MPI that mpi4py loads.

    Raises UserError if {ranks} is missing or there is no such program.
    """
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise UserError(f"--launcher {launcher}: {error}") from None
    if not any("{ranks}" in word for word in words):
        raise UserError(
            f"--launcher {launcher}: {{ranks}} is missing, which stands for the number of ranks: "
            f"mpirun -n {{ranks}}"
        )
    beside = Path(sys.executable).parent / words[0]
    if words[0] in ("mpirun", "mpiexec") and beside.is_file():
        words[0] = str(beside)
    if shutil.which(words[0]) is None:
        raise UserError(
            f"--launcher {launcher}: no program {words[0]}; `pip install mpitrain[runtimes]` "
            "brings mpirun"
        )
    return words


def training_options(network: str, options: Sequence[str]) -> list[str]:
    """The options given and, where they say nothing, a batch size and a number of steps. Raises
    UserError for too few steps."""
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
    """The number after --steps; None if there is none, or one that the training itself will
    refuse."""
    text = _value(options, "--steps")
    return None if text is None else whole(text)


def _check_alone(environment: Mapping[str, str]) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if environment.get(name, "1") != "1":
            raise UserError("scaling starts the ranks by itself: run it without mpirun or srun")


# -- one run
# --------------------------------------------------------------------------------------------------


def _run(words: Sequence[str], folder: Path, ranks: int, steps: int | None) -> None:
    """Run one training to its end, showing how far it is. Raises RunError with its last words if it
    does not end well."""
    errors = folder.parent / f"{folder.name}.stderr"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the ranks, too
    with errors.open("wb") as stderr, _display(ranks, steps) as show:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
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
    failure = RunError(
        f"with {counted(ranks, 'rank')}: {last_words(said, process.returncode)}{more}"
    )
    failure.exit_code = process.returncode if process.returncode > 0 else FAILED
    raise failure


def last_words(stderr: str, code: int) -> str:
    """The last line of a failed run's stderr; of mpitrain's own ones if there are, for launchers
    add theirs."""
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
        task = bar.add_task(counted(ranks, "rank"), total=steps)
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


def _events(folder: Path) -> list[dict[str, Any]]:
    log = folder / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def read_point(folder: Path) -> Point:
    """The point that a run directory stands for. Raises RunError if it has no step to measure."""
    config = toml.parse((folder / "config.toml").read_text())
    return point(_events(folder), config["ranks"]["hosts"])
