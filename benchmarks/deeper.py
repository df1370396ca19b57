"""VGG16 begun from a trained VGG11, as in the paper, beside VGG16 from drawn weights.

    pip install scikit-image scikit-learn      the photographs of the task
    python benchmarks/deeper.py [--out FOLDER]

The task is the one of accuracy.py: of which of ten photographs is this 3x32x32 patch? Trainings of
the command: VGG11, VGG16 from its weights (`--init ... --init-partial`), and VGG16 from drawn ones,
these two at a rate of 0.01 and at the paper's 0.001. Runs that FOLDER has already are not done
again. Writes a table and benchmarks/results/deeper.json; docs/training.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import patches

ROOT = Path(__file__).parents[1]
RANKS = 2
MEAN_OF = 10
"""Steps of which a point of the curve is the mean loss."""
COMMON = ("--batch-size", "60", "--evaluate-every", "50", "--quiet")


def train(name: str, network: str, steps: int, data: Path, out: Path, *more: str) -> dict[str, Any]:
    """One training, unless it is there: its command and its scores."""
    words = ["mpirun", "-n", str(RANKS), "mpitrain", network, "--steps", str(steps), *COMMON, *more]
    folder, log = out / name, out / name / "log.jsonl"
    if not log.exists() or '"event": "end"' not in log.read_text():
        subprocess.run([*words, "--data", data, "--keep", "1", "--out", folder], check=True)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    scores = [
        {
            "step": event["step"],
            "top1": event["top1"],
            "loss": event["loss"],
            "training_loss": float(np.mean(losses[max(0, event["step"] - 50) : event["step"]])),
        }
        for event in events
        if event["event"] == "evaluate"
    ]
    whole = len(losses) // MEAN_OF * MEAN_OF
    curve = np.reshape(losses[:whole], (-1, MEAN_OF)).mean(axis=1).round(4).tolist()
    (start,) = (event for event in events if event["event"] == "start")
    shown = shlex.join([*words, "--data", "patches.npz"])
    facts = {"name": name, "command": shown, "device": start["devices"][0], "scores": scores}
    return {**facts, "losses": curve}


def table(found: list[dict[str, Any]]) -> str:
    """A row for each number of steps, columns of each training."""
    head = [f"{each['name']}, {what}" for each in found for what in ("top-1", "test loss")]
    lines = [f"| steps | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for step in sorted({score["step"] for each in found for score in each["scores"]}):
        cells = []
        for each in found:
            score = next((score for score in each["scores"] if score["step"] == step), None)
            cells += [f"{score['top1']:.4f}", f"{score['loss']:.4f}"] if score else ["", ""]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Curves of the training loss of VGG16."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), dpi=120, layout="constrained")
    for each in found[1:]:
        steps = np.arange(1, len(each["losses"]) + 1) * MEAN_OF
        dashes = "--" if "drawn" in each["name"] else "-"
        colour = "C0" if each["name"].endswith("0.001") else "C1"
        axes.plot(steps, each["losses"], dashes, color=colour, label=each["name"])
    axes.set(xlabel="step", ylabel=f"training loss, mean of {MEAN_OF} steps", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/deeper"))
    parser.add_argument("--steps", type=int, default=150, help="of each training")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.out / "patches.npz"
    if not data.exists():
        np.savez(data, **patches())
    found = [train("VGG11", "vgg11", options.steps, data, options.out, "--lr", "0.01")]
    weights = options.out / "VGG11" / "checkpoints" / f"step-{options.steps:08d}.safetensors"
    begun = "--init", str(weights), "--init-partial"
    for lr in ("0.01", "0.001"):
        for start, more in (("from VGG11", begun), ("as drawn", ())):
            name = f"VGG16 {start} {lr}"
            found.append(train(name, "vgg16", options.steps, data, options.out, "--lr", lr, *more))
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    for each in found:
        each["command"] = each["command"].replace(f"{options.out}/", "")
    facts = {
        "command": "python benchmarks/deeper.py",
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "n": 1,
        "trainings": found,
    }
    path = ROOT / "benchmarks/results/deeper.json"
    path.write_text(json.dumps(facts, indent=1) + "\n")
    draw(found, path.with_suffix(".png"))
    print(table(found), file=sys.stdout)


if __name__ == "__main__":
    main()
