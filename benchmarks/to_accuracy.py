"""Time to a given accuracy: the command, and PyTorch's DistributedDataParallel over gloo, on the
same ranks, batch, learning rate and images; some seeds each.

    pip install scikit-image scikit-learn torch      photographs for the colour task, and the peer
    python benchmarks/to_accuracy.py --fashion FOLDER                  ranks of this host
    python benchmarks/to_accuracy.py --fashion FOLDER --lab LAB --link 100mbit     as root; LAB has
        netlab.sh, nsrun and nsrsh; --ranks hosts must be up

The tasks are accuracy.py's: LeNet on Fashion-MNIST, a ResNet of eight layers on patches of
photographs. Seconds are those of all training steps, the first with them, until the evaluation that
reached the target; evaluations themselves do not count. (The command goes on to its last step,
which --limit must allow for.) Writes
benchmarks/results/to-accuracy[-LINK].json and a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accuracy
import lab
import numpy as np
from ddp import Failed, of_first_rank
from measure import HERE, circumstances, spread
from rich.console import Console
from rich.table import Table

from mpitrain.data.source import open_source

METHODS = (
    "mpitrain auto", "mpitrain dynamic8", "mpitrain lowrank", "DDP float32", "DDP float16",
    "DDP powersgd",
)  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "LeNet, Fashion-MNIST": {
        "network": "lenet", "batch": 64, "lr": 0.01, "cosine": False, "steps": 900, "every": 50,
        "target": 0.85,
    },
    "ResNet of 8 layers, patches of photographs": {
        "network": "resnet8", "batch": 60, "lr": 0.02, "cosine": True, "steps": 400, "every": 20,
        "target": 0.8,
    },
}  # fmt: skip
"""Settings of each; `every`: steps between evaluations."""


def write_data(folder: Path, fashion: Path) -> None:
    """The images of both tasks, and the ResNet's network file."""
    source = open_source(str(fashion), shape_hint=(1, 28, 28))
    found = {}
    for prefix, split in (("", source.train), ("test_", source.test)):
        assert split is not None
        images, labels = split.read(np.arange(len(split)))
        found |= {f"{prefix}images": images, f"{prefix}labels": labels}
    np.savez(folder / "lenet.npz", **found)
    np.savez(folder / "resnet8.npz", **accuracy.patches())
    (folder / "resnet8.toml").write_text(accuracy.small_resnet())


def ours(options: Any, folder: Path, task: dict[str, Any], exchange: str, seed: int) -> Any:
    """Seconds of each step, and top-1 after which steps, by the log of the command."""
    with tempfile.TemporaryDirectory() as out:
        start = (
            lab.mpirun(options.lab, options.ranks)
            if options.lab
            else [str(Path(sys.executable).parent / "mpirun")]
        )
        net = task["network"] if task["network"] == "lenet" else folder / f"{task['network']}.toml"
        words = [
            *start, "-n", options.ranks, Path(sys.executable).parent / "mpitrain", net,
            "--data", task["data"], "--batch-size", task["batch"], "--lr", task["lr"],
            "--schedule", "cosine" if task["cosine"] else "constant", "--steps", task["steps"],
            "--evaluate-every", task["every"], "--checkpoint-every", task["steps"],
            "--exchange", exchange, "--seed", seed, "--quiet", "--out", f"{out}/run",
        ]  # fmt: skip
        run = subprocess.run(
            [str(word) for word in words],
            capture_output=True, text=True, timeout=options.limit, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if run.returncode:
            raise Failed((run.stderr.strip().splitlines() or ["failed"])[-1])
        events = [json.loads(line) for line in Path(out, "run/log.jsonl").read_text().splitlines()]
    return {
        "seconds": [each["seconds"]["total"] for each in events if each["event"] == "step"],
        "scores": [(each["step"], each["top1"]) for each in events if each["event"] == "evaluate"],
    }


def reach(options: Any, folder: Path, task: dict[str, Any], method: str, seed: int) -> Any:
    """One training: seconds and steps to the target, None if it was not reached."""
    side, way = method.split(" ")
    if side == "mpitrain":
        found = ours(options, folder, task, way, seed)
    else:
        settings = folder / "settings.json"
        settings.write_text(json.dumps(task))
        script = [str(HERE / "side_reach.py"), str(settings), way, str(seed)]
        found = json.loads(of_first_rank(options, script))
    steps = next((step for step, top1 in found["scores"] if top1 >= task["target"]), None)
    return {
        "seed": seed,
        "steps": steps,
        "seconds": steps and round(sum(found["seconds"][:steps]), 4),
        "step_seconds": spread(found["seconds"][2:]),
        "best": max(top1 for _, top1 in found["scores"]),
    }


def measure(options: Any, folder: Path, name: str, method: str) -> dict[str, Any]:
    """A row: all seeds of a method. A method that fails is not tried again."""
    task = {**TASKS[name], "data": str(folder / f"{TASKS[name]['network']}.npz")}
    row: dict[str, Any] = {"task": name, "method": method, "target": task["target"], "runs": []}
    for seed in range(options.seeds):
        try:
            row["runs"].append(reach(options, folder, task, method, seed))
        except subprocess.TimeoutExpired:
            return row | {"failed": f"no end after {options.limit:g} s"}
        except Failed as error:
            return row | {"failed": str(error).replace(str(folder), "DATA")}
        print(name, method, row["runs"][-1], flush=True)
    return row


def table(rows: Sequence[dict[str, Any]], options: Any) -> Table:
    where = f"{options.ranks} hosts, {options.link}" if options.lab else f"{options.ranks} ranks"
    found = Table(
        title=f"seconds of training until the target, {where}, {options.seeds} seeds: minimum / "
        "median / maximum",
        title_justify="left",
    )
    for heading in ("task", "top-1", "method", "seconds", "steps", "ms a step"):
        found.add_column(heading)
    for row in rows:
        done = [run for run in row["runs"] if run["steps"]]
        cells = [row["task"], f"{row['target']:g}", row["method"]]
        failed = row.get("failed", "")
        if not done:
            best = max((run["best"] for run in row["runs"]), default=0.0)
            found.add_row(*cells, failed or f"not reached, best {best:.4f}", "", "")
            continue
        missed = len(row["runs"]) - len(done)
        seconds = " / ".join(f"{each:.3g}" for each in spread([run["seconds"] for run in done]))
        steps = " / ".join(f"{each:g}" for each in spread([run["steps"] for run in done]))
        each = statistics.median(run["step_seconds"][1] for run in done) * 1e3
        found.add_row(
            *cells,
            seconds + (f" ({missed} not)" if missed else "") + (f"; then {failed}" * bool(failed)),
            steps,
            f"{each:.3g}",
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fashion", type=Path, required=True, help="Fashion-MNIST's IDX files")
    parser.add_argument("--lab", type=Path)
    parser.add_argument("--link", default="1gbit", help="of lab hosts")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=";".join(METHODS))
    parser.add_argument("--limit", type=float, default=180, help="seconds of a training")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    options = parser.parse_args()
    facts, rows = circumstances(options.seeds), []
    path = HERE / "results" / ("to-accuracy" + (f"-{options.link}" if options.lab else ""))
    if options.lab:
        lab.shape(options.lab, options.link, options.ranks)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), options.fashion)
        for name in TASKS:
            for method in options.methods.split(";"):
                rows.append(measure(options, Path(folder), name, method))
                found = {**facts, "ranks": options.ranks, "rows": rows}
                path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    Console(width=140).print(table(rows, options))


if __name__ == "__main__":
    main()
