"""Training steps across shaped links: the command, and PyTorch's DistributedDataParallel over gloo,
one after the other on the same lab hosts; as root.

    python benchmarks/ddp.py --lab FOLDER --links 1gbit,100mbit
        FOLDER has netlab.sh, nsrun, nsrsh; --ranks hosts must be up

Ours is timed by its log, PyTorch by each step's clock. Bytes are all that rank 0's host sent, by
its interface, divided by the steps: headers, retries, and the weights that all ranks get before
the first step are among them; the log's `bytes_sent` are those of the steps alone.
to_accuracy.py has the time to a given accuracy. Writes benchmarks/results/ddp-NETWORK.json, or
ddp-NAME.json with --name, and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lab
from measure import HERE, circumstances, spread
from rich.console import Console
from rich.table import Table

OURS = (
    "lowrank8",
    "lowrank",
    "dynamic8",
    "float32",
    "lowrank+split",
    "dynamic8+split",
    "float32+split",
)
"""An --exchange, and whether --dense split goes with it; one more word is its
--activations."""
DDP = ("float32", "float16", "powersgd")
METHODS = (*(f"mpitrain {each}" for each in OURS), *(f"DDP {each}" for each in DDP))
WARM = 2
"""Steps at a run's beginning that are not counted."""


class Failed(Exception):
    """A run that did not end as it should; says why."""


def sent() -> int:
    """Bytes that the first host has sent."""
    counter = "/sys/class/net/eth0/statistics/tx_bytes"
    words = ["ip", "netns", "exec", f"{lab.PREFIX}0", "cat", counter]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def ours(options: Any, exchange: str, steps: int) -> list[float]:
    """Seconds of each step, by the log of the command."""
    exchange, *more = exchange.split("+")
    dense, activations = (*more, *("whole", "float32")[len(more) :])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [
            *lab.mpirun(options.lab, options.ranks), "-n", str(options.ranks),
            str(Path(sys.executable).parent / "mpitrain"), options.network,
            "--data", "synthetic:64", "--batch-size", str(options.batch), "--steps", str(steps),
            "--exchange", exchange, "--dense", dense, "--activations", activations,
            "--checkpoint-every", "9999",
            "--evaluate-every", "9999", "--out", str(out), "--quiet",
        ]  # fmt: skip
        run = subprocess.run(words, capture_output=True, text=True, timeout=options.limit)
        if run.returncode:
            raise Failed(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "failed")
        events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [each["seconds"]["total"] for each in events if each["event"] == "step"]


def ddp(options: Any, hook: str, steps: int) -> list[float]:
    """Seconds of each step, as rank 0 saw them."""
    words = [str(HERE / "side_ddp.py"), options.network, str(options.batch), str(steps), hook]
    seconds: list[float] = json.loads(of_first_rank(options, words))
    return seconds


def of_first_rank(options: Any, script: list[str]) -> str:
    """What rank 0 prints of a script of PyTorch's that is given each rank and their number; on lab
    hosts, or without a lab on this one."""
    place = {
        "MASTER_ADDR": lab.FIRST_ADDRESS if options.lab else "127.0.0.1",
        "MASTER_PORT": "29501",
        "GLOO_SOCKET_IFNAME": "eth0" if options.lab else "lo",
    }
    processes = []
    for rank in range(options.ranks):
        there = [str(options.lab / "nsrun"), f"{lab.PREFIX}{rank}"] if options.lab else []
        words = [*there, options.torch_python, *script, str(rank), str(options.ranks)]
        processes.append(
            subprocess.Popen(
                words,
                env=os.environ | place,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        printed = [each.communicate(timeout=options.limit) for each in processes]
    except subprocess.TimeoutExpired:
        for each in processes:
            each.kill()
        raise Failed(f"no end after {options.limit:g} s") from None
    codes = [each.returncode for each in processes]
    if any(codes):
        said = next((err.strip().splitlines() for _, err in printed if err.strip()), ["no word"])
        raise Failed(f"exit codes {codes}: {said[-1][:200]}")
    return printed[0][0]


def measure(options: Any, link: str, method: str) -> dict[str, Any]:
    """One row."""
    kind, way = method.split(" ")
    begin = sent()
    row: dict[str, Any] = {"link": link, "method": method}
    try:
        seconds = (ours if kind == "mpitrain" else ddp)(options, way, options.steps)
    except (Failed, subprocess.TimeoutExpired) as error:
        return row | {"failed": str(error)}
    counted = seconds[WARM:]
    return row | {
        "seconds": spread(counted),
        "n": len(counted),
        "megabytes": round((sent() - begin) / len(seconds) / 1e6, 1),
    }


def table(rows: list[dict[str, Any]], options: Any) -> Table:
    found = Table(
        title=f"{options.network}, batch {options.batch}, {options.ranks} hosts, steps after the "
        f"first {WARM}: minimum / median / maximum",
        title_justify="left",
    )
    for heading in ("link", "method", "s/step", "MB sent / steps", "DDP float32 / it"):
        found.add_column(heading)
    for row in rows:
        if "failed" in row:
            found.add_row(row["link"], row["method"], row["failed"], "", "")
            continue
        base = next(
            (r for r in rows if r["link"] == row["link"] and r["method"] == "DDP float32"), {}
        )
        middle = statistics.median(row["seconds"])
        ratio = f"{base['seconds'][1] / middle:.2f}" if "seconds" in base else ""
        words = " / ".join(f"{each:.3g}" for each in row["seconds"])
        found.add_row(row["link"], row["method"], words, f"{row['megabytes']:,}", ratio)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--links", default="1gbit")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--network", default="vgg16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--methods", default=";".join(METHODS), help="with ; between")
    parser.add_argument(
        "--limit", type=float, default=300, help="seconds of a run, then it has failed"
    )
    parser.add_argument("--name", help="of the files of results, instead of the network's")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    options = parser.parse_args()
    facts = circumstances(options.steps - WARM)
    rows: list[dict[str, Any]] = []
    path = HERE / "results" / f"ddp-{options.name or options.network}"
    for link in options.links.split(","):
        lab.shape(options.lab, link, options.ranks)
        for method in options.methods.split(";"):
            rows.append(measure(options, link, method))
            print(rows[-1], flush=True)
            path.with_suffix(".json").write_text(json.dumps({**facts, "rows": rows}, indent=1))
    with path.with_suffix(".txt").open("w") as file:
        for console in (Console(), Console(file=file, width=100)):
            console.print(table(rows, options))


if __name__ == "__main__":
    main()
