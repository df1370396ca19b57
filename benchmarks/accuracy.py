"""What lossy exchanges cost in accuracy: trainings that differ in --exchange alone, some seeds
each, on real images.

    pip install scikit-image scikit-learn      photographs for the colour task
    python benchmarks/accuracy.py --fashion FOLDER

Two tasks. LeNet on Fashion-MNIST, whose IDX files are in FOLDER. And a ResNet of eight layers on
3x32x32 patches of ten colour photographs that the two packages ship: of which photograph is this
patch? It has CIFAR's shape and is not CIFAR: patches for testing are of squares of the photographs
that no patch for training touches. Writes a table and benchmarks/results/accuracy.json;
docs/accuracy.md says what came out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[1]
EXCHANGES = ("float32", "dynamic8", "lowrank:1", "lowrank", "lowrank8")
RESULTS = ROOT / "benchmarks" / "results" / "accuracy.json"
PHOTOGRAPHS = {
    "skimage": [
        f"data/{name}"
        for name in (
            "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg",
            "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
        )
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}  # fmt: skip
"""Colour photographs, a class each, by the package that ships them."""
CELL, PATCH = 48, 32
"""Pixels: a photograph is cut into squares, a fifth of them for testing, and each patch is cut out
of one square."""
TRAIN, TEST = 600, 200
"""Patches of each photograph."""


def patches(seed: int = 0) -> dict[str, NDArray[Any]]:
    """uint8 images (n, 3, 32, 32) and int64 labels of both splits."""
    random, found = np.random.default_rng(seed), []
    names = [(package, name) for package, some in PHOTOGRAPHS.items() for name in some]
    for label, (package, name) in enumerate(names):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            sys.exit(f"{package} is not installed: pip install scikit-image scikit-learn")
        with Image.open(Path(spec.origin).parent / name) as image:
            photograph = np.asarray(image.convert("RGB"))
        rows, columns = (side // CELL for side in photograph.shape[:2])
        cells = random.permutation(rows * columns)
        tested = len(cells) // 5
        for some, count in ((cells[tested:], TRAIN), (cells[:tested], TEST)):
            chosen = random.choice(some, count)
            tops, lefts = random.integers(0, CELL - PATCH + 1, (2, count))
            corners = zip(
                chosen // columns * CELL + tops, chosen % columns * CELL + lefts, strict=True
            )
            cut = [photograph[y : y + PATCH, x : x + PATCH].transpose(2, 0, 1) for y, x in corners]
            found.append((np.stack(cut), np.full(count, label)))
    splits = found[::2], found[1::2]
    arrays = [np.concatenate([each[part] for each in split]) for split in splits for part in (0, 1)]
    return dict(zip(("images", "labels", "test_images", "test_labels"), arrays, strict=True))


def small_resnet() -> str:
    """A network file: ResNet in CIFAR's form, three stages of one block each."""
    lines = ['name = "resnet8"', "input = [3, 32, 32]", "classes = 10", ""]

    def layer(name: str, kind: str, **facts: Any) -> None:
        lines.extend(["[[layer]]", f'name = "{name}"', f'type = "{kind}"'])
        lines.extend([*(f"{key} = {json.dumps(value)}" for key, value in facts.items()), ""])

    def convolution(name: str, channels: int, kernel: int, stride: int, **facts: Any) -> None:
        layer(f"{name}.conv", "convolution", channels=channels, kernel=kernel, stride=stride,
              padding=kernel // 2, bias=False, **facts)  # fmt: skip
        layer(f"{name}.bn", "batch_norm")

    convolution("first", 16, 3, 1)
    layer("relu", "relu")
    before = "relu"
    for stage, channels in enumerate((16, 32, 64)):
        name, stride = f"stage{stage}", 1 + (stage > 0)
        convolution(f"{name}.a", channels, 3, stride)
        layer(f"{name}.relu1", "relu")
        convolution(f"{name}.b", channels, 3, 1)
        if stride > 1:
            convolution(f"{name}.short", channels, 1, stride, inputs=[before])
            before = f"{name}.short.bn"
        layer(f"{name}.sum", "add", inputs=[f"{name}.b.bn", before])
        layer(f"{name}.relu2", "relu")
        before = f"{name}.relu2"
    layer("mean", "global_average_pool")
    layer("flat", "flatten")
    layer("fc", "dense", features="classes")
    layer("loss", "softmax_cross_entropy")
    return "\n".join(lines)


def train(arguments: list[str], ranks: int, seed: int, exchange: str) -> dict[str, Any]:
    """Top-1 and loss on the test images at a training's end."""
    here = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        words = [
            str(here / "mpirun"),
            "-n",
            str(ranks),
            str(here / "mpitrain"),
            *arguments,
            "--quiet",
        ]
        words += ["--seed", str(seed), "--exchange", exchange, "--out", f"{folder}/run"]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        events = [
            json.loads(line) for line in Path(folder, "run/log.jsonl").read_text().splitlines()
        ]
    scores = [event for event in events if event["event"] == "evaluate"][-1]
    return {"seed": seed, "exchange": exchange} | {
        name: scores[name] for name in ("step", "top1", "loss")
    }


def table(found: list[dict[str, Any]]) -> str:
    """A row for each task and exchange: top-1 of each seed, mean and deviation; and how far the
    means are from each other."""
    lines = [
        "| task | exchange | top-1, a seed each | mean | deviation | loss, mean |",
        "|---|---|---|---|---|---|",
    ]
    for task in found:
        for exchange in EXCHANGES:
            rows = [row for row in task["rows"] if row["exchange"] == exchange]
            if len(rows) < 2:
                continue
            top1 = [row["top1"] for row in rows]
            lines.append(
                f"| {task['task']} | {exchange} | {', '.join(f'{each:.4f}' for each in top1)} | "
                f"{statistics.mean(top1):.4f} "
                f"| {statistics.stdev(top1):.4f} | "
                f"{statistics.mean(row['loss'] for row in rows):.4f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--fashion", type=Path, required=True, help="folder of Fashion-MNIST's IDX files"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", default="1,4", help="of LeNet, of the ResNet")
    parser.add_argument(
        "--exchanges",
        default=",".join(EXCHANGES),
        help="to train with; rows of the others stay as they are in the results",
    )
    options = parser.parse_args()
    chosen = options.exchanges.split(",")
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"tasks": []}
    lenet, resnet = options.epochs.split(",")
    with tempfile.TemporaryDirectory() as folder:
        network, data = Path(folder, "resnet8.toml"), Path(folder, "patches.npz")
        network.write_text(small_resnet())
        np.savez(data, **patches())
        tasks: list[tuple[str, list[str]]] = [
            (
                f"LeNet, Fashion-MNIST, {lenet} epochs",
                ["lenet", "--data", str(options.fashion), "--epochs", lenet],
            ),
            (
                f"ResNet of 8 layers, patches of photographs, {resnet} epochs",
                [
                    str(network),
                    "--data",
                    str(data),
                    "--epochs",
                    resnet,
                    "--batch-size",
                    "60",
                    "--lr",
                    "0.02",
                    "--schedule",
                    "cosine",
                ],
            ),
        ]
        found = []
        for name, arguments in tasks:
            rows = [
                {"commit": before["commit"], **row}
                for task in before["tasks"]
                for row in task["rows"]
                if task["task"] == name and row["exchange"] not in chosen
            ]
            for seed in range(options.seeds):
                for exchange in chosen:
                    rows.append(train(arguments, options.ranks, seed, exchange))
                    print(name, rows[-1], flush=True)
            found.append({"task": name, "rows": rows})
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
    )
    # Where the images lie is nobody else's concern.
    typed = ["FOLDER" if word == str(options.fashion) else word for word in sys.argv[1:]]
    facts = {
        "command": "python benchmarks/accuracy.py " + shlex.join(typed),
        "commit": commit.stdout.strip(),
        "machine": (
            f"{platform.machine()}, {os.cpu_count()} cores, {len(os.sched_getaffinity(0))} allowed"
        ),
        "ranks": options.ranks,
        "tasks": found,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
