"""`mpitrain tune NETWORK`: measure every algorithm for every convolution of a network, check it,
and remember the fastest by more than noise.

Candidates are compiled and run in a child process with a time limit: a compiler that aborts or a
kernel that hangs costs that candidate and nothing else. One whose result is further from float64
than BOUND is out, and said so.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mpitrain.data.source import open_source
from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device
from mpitrain.job.errors import UserError
from mpitrain.layers import Convolution
from mpitrain.layers.conv.algorithm import PASSES, PassName
from mpitrain.layers.conv.choice import candidates
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.winograd import BOUND
from mpitrain.network import models
from mpitrain.network.memory import INPUT, infer_shapes

LIMIT = 60.0
"""Seconds that a candidate may take to compile, run and be checked."""
MARGIN = 0.05
"""Share of its time by which another algorithm must be faster than the one that is taken now, or a
choice flips with noise: six measurements of one thing, in one process, differed by 1.3 to 4.2 %
(three of VGG11's passes by two algorithms, one image, one core of two, Intel's runtime, 2.9 to 15
ms)."""


@dataclass(frozen=True)
class Problem:
    """One pass of one convolution."""

    what: PassName
    geometry: Geometry
    nodes: int
    """How many of the network's layers are this one."""

    def __str__(self) -> str:
        return f"{self.what} {self.geometry}"


def tune(name: str, data: str | None, batch_size: int, device_name: str, again: bool) -> None:
    """Tune a network's convolutions for batches of `batch_size` images. Raises UserError for a
    network or device there is not."""
    device = open_device(device_name)
    network = models.load(name, None, None)
    if data is not None:
        channels, height, width = network.input_shape
        source = open_source(data, shape_hint=(channels, height, width))
        network = models.load(name, source.shape, source.classes)
    problems = [
        each
        for each in problems_of(name, network)
        if len(candidates(device, each.geometry, each.what)) > 1
    ]
    console = Console()
    if not problems:
        print(f"{name} on {device}: nothing to choose, every convolution has one algorithm there")
        return
    table = Table(
        "pass",
        "convolution",
        "layers",
        "taken",
        "ms",
        "others",
        title=f"{name}, {batch_size} images, {device}",
    )
    worker = Worker(device_name)
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("tuning", total=len(problems))
            for problem in problems:
                progress.update(task, description=str(problem))
                if again or not device.tuned.knows(str(problem), batch_size):
                    measured = {
                        way: worker.measure(problem, way, batch_size)
                        for way in candidates(device, problem.geometry, problem.what)
                    }
                    _remember(device, problem, batch_size, measured)
                entry = device.tuned.entry(str(problem), batch_size)
                assert entry is not None
                table.add_row(
                    problem.what, str(problem.geometry), str(problem.nodes), *_words(entry)
                )
                progress.advance(task)
    finally:
        worker.close()
    console.print(table)
    print(f"kept in {device.tuned.path}")


def problems_of(name: str, network: Any) -> list[Problem]:
    """Every pass of every distinct convolution, in the network's order."""
    shapes = infer_shapes(network)
    found: dict[tuple[PassName, Geometry], int] = {}
    for node in network.nodes:
        if isinstance(node.layer, Convolution):
            geometry = node.layer.geometry(shapes[node.inputs[0]])
            for what in PASSES:
                if what != "backward data" or INPUT not in node.inputs:
                    found[what, geometry] = found.get((what, geometry), 0) + 1
    if not found:
        raise UserError(f"{name} has no convolutions to tune")
    return [Problem(what, geometry, nodes) for (what, geometry), nodes in found.items()]


def _remember(
    device: Engine, problem: Problem, images: int, measured: Mapping[str, Mapping[str, Any]]
) -> None:
    right = {way: each["seconds"] for way, each in measured.items() if "failed" not in each}
    if not right:
        ways = "; ".join(f"{way}: {each['failed']}" for way, each in measured.items())
        raise UserError(f"{problem}: no algorithm works on {device}: {ways}")
    now = device.tuned.choice(str(problem), images)
    if now not in right:  # as training has it: what a count of the work favours
        families = candidates(device, problem.geometry, problem.what)
        asked = device, problem.geometry, problem.what, images
        now = min(right, key=lambda way: families[way].cost(way, *asked))
    device.tuned.keep(str(problem), images, _fastest(right, now), measured)


def _fastest(seconds: Mapping[str, float], now: str) -> str:
    """The fastest way, or the one taken `now` where no other is faster by more than MARGIN."""
    best = min(seconds, key=lambda way: seconds[way])
    return best if seconds[best] < (1 - MARGIN) * seconds[now] else now


def _words(entry: Mapping[str, Any]) -> Iterator[str]:
    """Of one table row: the one taken, its milliseconds, and the others' or why they are out."""
    choice, measured = entry["choice"], entry["measured"]
    yield choice
    yield f"{measured[choice]['seconds'] * 1e3:.2f}"
    yield ", ".join(
        f"{way} {each['failed']}" if "failed" in each else f"{way} {each['seconds'] * 1e3:.2f}"
        for way, each in measured.items()
        if way != choice
    )


class Worker:
    """A child process that measures candidates, started again when one has taken it down."""

    def __init__(self, device_name: str, limit: float = LIMIT) -> None:
        self._command = [sys.executable, "-m", "mpitrain.commands.tune_worker", device_name]
        self._limit = limit
        self._child: subprocess.Popen[str] | None = None

    def measure(self, problem: Problem, way: str, images: int) -> dict[str, Any]:
        """{"seconds", "error"} of one candidate, or {"failed": why}."""
        if self._child is None:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True
            )  # fmt: skip
        child = self._child
        assert child.stdin and child.stdout
        question = {
            "what": problem.what,
            "geometry": asdict(problem.geometry),
            "way": way,
            "images": images,
        }
        try:
            child.stdin.write(json.dumps(question) + "\n")
            child.stdin.flush()
            ready, _, _ = select.select([child.stdout], [], [], self._limit)
            answer = child.stdout.readline() if ready else None
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            how = f"took more than {self._limit:g} s" if answer is None else "took its process down"
            return {"failed": how}
        found: dict[str, Any] = json.loads(answer)
        if "failed" not in found and not found["error"] <= BOUND:
            found["failed"] = (
                f"is off by {found['error']:.1e} of the result's deviation (at most {BOUND:.0e})"
            )
        return found

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
