"""Training steps of the command that users run, against a PyTorch loop that also takes its batches
from host memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measure import Side, SideError, cores, rates, ratios, spread, take_turns
from rich.table import Table

BATCHES = {"lenet": 64, "vgg16": 16, "resnet152": 8}
"""Networks, and images in a step of theirs."""
STEPS = {"lenet": 800, "vgg16": 6, "resnet152": 6}
"""Steps of one turn. Those before the second do not count: they compile, and touch memory first."""
DATA = {"lenet": "digits"}
"""Networks that have real images here; the others get made-up ones."""
LAYOUTS = ("channels-last", "contiguous")
RANKS = (1, 2)


def rows(
    networks: Sequence[str], device: str, torch_python: str, n: int
) -> Iterator[dict[str, Any]]:
    """One a network and number of ranks. PyTorch is a fresh process for each network, so that its
    peak of memory is this network's."""
    for network in networks:
        batch = BATCHES[network]
        with Side(torch_python, "side_pytorch.py") as theirs:
            theirs("open")  # says what is missing before anything has been measured
        tried = {layout: _try(torch_python, network, layout) for layout in LAYOUTS}
        layout = min(LAYOUTS, key=tried.__getitem__)
        alone: Sequence[float] = ()
        for ranks in RANKS:
            with Side(torch_python, "side_pytorch.py") as theirs:
                theirs("open")
                peer = theirs("step", network=network, batch=batch, layout=layout)
                command = Command(network, batch, ranks, device)
                a, b = take_turns(command, partial(theirs, "time", name="step"), n)
                ours = command.figures(n)
                if peer["parameters"] != ours.pop("parameters"):
                    raise SideError(f"{network}: not the same parameters as PyTorch's {peer}")
                alone = alone or a
                yield {
                    "network": network,
                    "batch": batch,
                    "ranks": ranks,
                    "ours": {"images_per_second": rates(batch, a), "seconds": spread(a), **ours},
                    "pytorch": {
                        "images_per_second": rates(batch, b),
                        "seconds": spread(b),
                        "peak_memory": theirs("memory"),
                        "layout": layout,
                        "optimizer": peer["optimizer"],
                        "tried_seconds": tried,
                    },
                    "ratio": ratios(a, b),
                    "of_one_rank": ratios(a, alone),
                }


@dataclass
class Command:
    """`mpirun -n RANKS mpitrain NETWORK`, a run at each call; its log says what the steps took."""

    network: str
    batch: int
    ranks: int
    device: str
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
                "cores": sum(step["cpu_seconds"] for step in steps[1:])
                / (len(steps) - 1)
                / seconds,
                "host": sum(step["seconds"]["host"] for step in steps) / len(steps),
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
            "parameters": runs[-1]["parameters"],
            "peak_memory": runs[-1]["peak_memory"],
            "device_memory": runs[-1]["device_memory"],
            "loss": runs[-1]["loss"],
            "cores": spread([run["cores"] for run in runs]),
            "host_seconds": spread([run["host"] for run in runs]),
        }

    def _run(self, out: Path) -> None:
        near = Path(sys.executable).parent
        command = [near / "mpirun", "-n", self.ranks, near / "mpitrain", self.network]
        command += ["--data", DATA.get(self.network, "synthetic"), "--batch-size", self.batch]
        command += ["--steps", STEPS[self.network], "--epochs", 100, "--evaluate-every", "1000ep"]
        command += [
            "--checkpoint-every",
            "1000ep",
            "--device",
            self.device,
            "--out",
            out,
            "--quiet",
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
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
