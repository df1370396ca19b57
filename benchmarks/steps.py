"""Training steps of the command that users run, against a PyTorch loop that also takes its batches
from host memory."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measure import Side, SideError, cores, in_a_row, rates, ratios, spread, take_turns
from rich.table import Table

BATCHES = {
    "lenet": 64,
    "vgg16": 16,
    "resnet152": 8,
    "alexnet": 16,
    "densenet121": 16,
    "mobilenetv2": 16,
}
"""Networks, and images in a step of theirs."""
STEPS = {
    "lenet": 800,
    "vgg16": 6,
    "resnet152": 6,
    "alexnet": 12,
    "densenet121": 6,
    "mobilenetv2": 8,
}
"""Steps of one turn. Those before the second do not count: they compile, and touch memory first."""
DATA = {"lenet": "digits"}
"""Networks that have real images here; the others get made-up ones."""
LAYOUTS = ("channels-last", "contiguous")
RANKS = (1, 2)


def rows(
    networks: Sequence[str],
    device: str,
    torch_python: str | None,
    n: int,
    ranks: Sequence[int] = RANKS,
    steps: Mapping[str, int] = STEPS,
) -> Iterator[dict[str, Any]]:
    """One a network and number of ranks; without a Python that has torch ours alone."""
    for network in networks:
        if torch_python:
            with Side(torch_python, "side_pytorch.py") as theirs:
                theirs("open")  # says what is missing before anything has been measured
            tried = {layout: _try(torch_python, network, layout) for layout in LAYOUTS}
        alone: Sequence[float] = ()
        for count in ranks:
            command = Command(network, BATCHES[network], count, device, steps[network])
            if torch_python:
                seconds, beside = _beside(torch_python, command, tried, n)
            else:
                seconds, beside = in_a_row(command, n), {}
            alone = alone or seconds
            yield {
                "network": network,
                "batch": command.batch,
                "ranks": count,
                "command": command.shown(),
                "ours": {
                    "images_per_second": rates(command.batch, seconds),
                    "seconds": spread(seconds),
                    **command.figures(n),
                },
                **beside,
                "of_one_rank": ratios(seconds, alone),
            }


def _beside(
    torch_python: str, command: Command, tried: Mapping[str, float], n: int
) -> tuple[list[float], dict[str, Any]]:
    """Seconds of the command in turns with PyTorch, and PyTorch's figures. PyTorch is a fresh
    process, so that its peak of memory is this network's."""
    layout = min(tried, key=lambda each: tried[each])
    with Side(torch_python, "side_pytorch.py") as theirs:
        theirs("open")
        peer = theirs("step", network=command.network, batch=command.batch, layout=layout)
        a, b = take_turns(command, partial(theirs, "time", name="step"), n)
        if peer["parameters"] != command.parameters:
            raise SideError(f"{command.network}: not the same parameters as PyTorch's {peer}")
        figures = {
            "images_per_second": rates(command.batch, b),
            "seconds": spread(b),
            "peak_memory": theirs("memory"),
            "layout": layout,
            "optimizer": peer["optimizer"],
            "tried_seconds": tried,
        }
    return a, {"pytorch": figures, "ratio": ratios(a, b)}


@dataclass
class Command:
    """`mpirun -n RANKS mpitrain NETWORK`, a run at each call; its log says what the steps took."""

    network: str
    batch: int
    ranks: int
    device: str
    steps: int
    uncounted = 1
    """First steps of a run."""

    def __post_init__(self) -> None:
        self._runs: list[dict[str, Any]] = []

    def __call__(self) -> float:
        """Seconds of a step, from one to the next."""
        with tempfile.TemporaryDirectory() as folder:
            self._run(Path(folder) / "run")
            lines = (Path(folder) / "run" / "log.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        start, end = events[0], events[-1]
        # The last step is logged when the run ends, the others beside the step after them.
        steps = [event for event in events if event["event"] == "step"][self.uncounted : -1]
        seconds = (steps[-1]["time"] - steps[0]["time"]) / (len(steps) - 1)
        if end["event"] != "end" or not math.isfinite(steps[-1]["loss"]):
            raise SideError(f"{self.network}: the log ends with {end}")
        self._runs.append(
            {
                "parameters": start["parameters"],
                "cores": sum(step["cpu_seconds"] for step in steps)
                / sum(step["seconds"]["total"] for step in steps),
                "host": sum(step["seconds"]["host"] for step in steps) / len(steps),
                "exchange": sum(step["seconds"]["exchange"] for step in steps) / len(steps),
                "peak_memory": end["peak_memory"],
                "device_memory": end["device_memory"],
                "loss": steps[-1]["loss"],
            }
        )
        return float(seconds)

    def figures(self, n: int) -> dict[str, Any]:
        """What the last n runs were besides fast."""
        runs = self._runs[-n:]
        return {
            "parameters": self.parameters,
            "peak_memory": runs[-1]["peak_memory"],
            "device_memory": runs[-1]["device_memory"],
            "loss": runs[-1]["loss"],
            "cores": spread([run["cores"] for run in runs]),
            "host_seconds": spread([run["host"] for run in runs]),
            "exchange_seconds": spread([run["exchange"] for run in runs]),
        }

    @property
    def parameters(self) -> int:
        """Of the network, by the last run's log."""
        return int(self._runs[-1]["parameters"])

    def words(self) -> list[str]:
        """What is run, but for where it leaves its log."""
        return [
            "mpirun", "-n", str(self.ranks), "mpitrain", self.network,
            "--data", DATA.get(self.network, "synthetic"), "--batch-size", str(self.batch),
            "--steps", str(self.steps), "--epochs", "100", "--evaluate-every", "1000ep",
            "--checkpoint-every", "1000ep", "--device", self.device,
        ]  # fmt: skip

    def shown(self) -> str:
        """`words` as one types them."""
        return shlex.join(self.words())

    def _run(self, out: Path) -> None:
        words: list[str] = []
        for word in self.words():
            beside = Path(sys.executable).with_name("mpirun")
            started = {
                "mpirun": [str(beside if beside.is_file() else word)],
                "mpitrain": [sys.executable, "-m", "mpitrain"],
            }
            words += started.get(word, [word])
        done = subprocess.run(
            [*words, "--out", str(out), "--quiet"], capture_output=True, text=True
        )
        if done.returncode:
            raise SideError(
                f"mpitrain {self.network} ended with {done.returncode}: {done.stderr.strip()}"
            )


def _try(torch_python: str, network: str, layout: str) -> float:
    """Seconds of PyTorch's step in a layout: the better of two, after one that does not count."""
    with Side(torch_python, "side_pytorch.py") as side:
        side("open")
        side("step", network=network, batch=BATCHES[network], layout=layout)
        side("time", name="step")
        return float(min(side("time", name="step") for _ in range(2)))


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What was found, a network and number of ranks a line."""
    table = Table(
        title=f"Training steps, n = {found['n']}: minimum / median / maximum",
        title_justify="left",
        caption_justify="left",
    )
    left = ("network", "its layout")
    for name in (
        "network", "batch", "ranks", "ours, s", "img/s", "GiB", "cores", "host, ms", "of one rank",
        "PyTorch, s", "img/s", "GiB", "its layout", "PyTorch's s / ours",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name in left else "right")
    for row in found["rows"]:
        ours, theirs = row["ours"], row["pytorch"]
        table.add_row(
            row["network"],
            str(row["batch"]),
            str(row["ranks"]),
            *_common(ours),
            three(ours["cores"]),
            f"{1e3 * ours['host_seconds'][1]:.3g}",
            three(row["of_one_rank"]),
            *_common(theirs),
            theirs["layout"],
            three(row["ratio"]),
        )
    table.caption = (
        f"Ours is the command, by its log; all ranks share {cores()} cores. cores: CPU time of all "
        "ranks over wall "
        "time.\nhost: what rank 0's main thread does of its own in a step, waiting for nothing. of "
        "one rank: images/s "
        "beside those of one rank.\nGiB: peak resident memory of all processes. Layout: the faster "
        "of two that were tried."
    )
    return [table]


def _common(side: Mapping[str, Any]) -> list[str]:
    speed, memory = side["images_per_second"][1], side["peak_memory"] / 2**30
    return [three(side["seconds"]), f"{speed:.4g}", f"{memory:.2f}"]


def three(values: Sequence[float]) -> str:
    """A spread in a cell."""
    return " / ".join(f"{each:.3g}" if each < 100 else f"{each:.0f}" for each in values)
