"""What shifted and mirrored images and smoothed labels gain: trainings with and without them, some
seeds each, on real images.

    pip install scikit-image scikit-learn      photographs
    python benchmarks/augmentation.py

ResNet18 on the colour task of accuracy.py: 3x32x32 patches of ten photographs, and of which one is
this patch? With few patches to train on, which a network learns by heart. Writes a table and
benchmarks/results/augmentation.json; docs/accuracy.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import TRAIN, patches
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
WAYS = {
    "as they are": [],
    "crop, flip, smoothing 0.1": ["--augment", "crop,flip", "--label-smoothing", "0.1"],
}
TASK = ["resnet18", "--batch-size", "60", "--lr", "0.02", "--schedule", "cosine"]


def few(count: int) -> dict[str, NDArray[Any]]:
    """The patches, with so many of each photograph to train on."""
    arrays = patches()
    first = np.arange(len(arrays["labels"])) % TRAIN < count
    return arrays | {name: arrays[name][first] for name in ("images", "labels")}


def train(arguments: list[str], ranks: int, seed: int) -> list[dict[str, Any]]:
    """Scores on the test images, every few epochs."""
    here = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        words = [here / "mpirun", "-n", ranks, here / "mpitrain", *arguments, "--quiet"]
        words += ["--seed", seed, "--out", f"{folder}/run", "--checkpoint-every", "1000ep"]
        words += ["--evaluate-every", "5ep"]
        subprocess.run([str(word) for word in words], check=True, stdin=subprocess.DEVNULL)
        lines = Path(folder, "run/log.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [
        {name: event[name] for name in ("step", "top1", "loss")}
        for event in events
        if event["event"] == "evaluate"
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| training images | top-1, a seed each | mean | deviation |", "|---|---|---|---|"]
    for way in WAYS:
        top1 = [row["scores"][-1]["top1"] for row in rows if row["way"] == way]
        deviation = statistics.stdev(top1) if len(top1) > 1 else float("nan")
        lines.append(
            f"| {way} | {', '.join(f'{each:.4f}' for each in top1)} | "
            f"{statistics.mean(top1):.4f} | {deviation:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--patches", type=int, default=120, help="to train on, of each photograph")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "patches.npz")
        np.savez(data, **few(options.patches))
        arguments = [*TASK, "--data", str(data), "--epochs", str(options.epochs)]
        for seed in range(options.seeds):
            for way, more in WAYS.items():
                scores = train([*arguments, *more], options.ranks, seed)
                rows.append({"way": way, "seed": seed, "scores": scores})
                print(way, seed, scores[-1], flush=True)
    print(table(rows))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    facts = {
        "command": " ".join(["mpitrain", *TASK, "--epochs", str(options.epochs)]),
        "ways": WAYS,
        "ranks": options.ranks,
        "patches": options.patches,
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    results = ROOT / "benchmarks/results/augmentation.json"
    results.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
