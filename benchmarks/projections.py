"""What a step takes with more ranks and faster links than there are here: docs/scaling.md.

    python benchmarks/projections.py            writes the page's tables and the picture
    python benchmarks/projections.py --measure  measures the CPU time of exchanges before

The model is step_model.py, its bytes those of mpitrain/commands/traffic.py;
projected.py has its constants, projection_checks.py what was measured of the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import HERE, circumstances, spread
from projected import (
    IMAGES,
    KINDS,
    MEASURED_NETWORK,
    MEASURED_RANKS,
    RESULTS,
    STRONG_BATCH,
    WORK,
    Device,
    constants,
    devices,
    strong,
    weak,
)
from projection_checks import bytes_sent, checks, paper_curves

from mpitrain.commands.curve import COMPUTE, PAPER, star_seconds

PAGE, PICTURE = HERE.parent / "docs" / "scaling.md", RESULTS / "projections.png"
NETWORKS = ("vgg16", "resnet50", "resnet152")
EXCHANGES = (
    "star-float32", "star-dynamic8", "float32", "float16", "dynamic8", "lowrank", "lowrank8"
)  # fmt: skip
SPLIT = ("float32", "dynamic8", "lowrank8")
"""Exchanges that are shown together with --dense split."""
RANKS = (8, 32, 128, 1024)
STRONG_RANKS = (4, 8, 16, 32, 64)
LINKS = (1, 10, 100)
"""Gbit/s."""
MEASURED_STEPS, WARM = 12, 2


def measure_work() -> None:
    """Write CPU nanoseconds a value and rank of each exchange, minimum, median and maximum."""
    found = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            words = [
                str(Path(sys.executable).parent / "mpirun"), "-n", str(MEASURED_RANKS),
                str(Path(sys.executable).parent / "mpitrain"), MEASURED_NETWORK,
                "--data", "synthetic:64", "--batch-size", "16", "--steps", str(MEASURED_STEPS),
                "--compute-seconds", "0", "--exchange", kind, "--quiet", "--out", f"{folder}/run",
            ]  # fmt: skip
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
            log = Path(folder, "run", "log.jsonl").read_text().splitlines()
        start, *events = [json.loads(line) for line in log]
        steps = [each for each in events if each["event"] == "step"][WARM:]
        scale = 1e9 / MEASURED_RANKS / start["parameters"]
        found[kind] = spread([each["cpu_seconds"] * scale for each in steps])
        print(kind, found[kind], flush=True)
    facts = circumstances(MEASURED_STEPS - WARM)
    WORK.write_text(json.dumps({**facts, "nanoseconds": found}, indent=1) + "\n")


def tables() -> dict[str, str]:
    """What stands on the page between `<!-- NAME -->` and `<!-- end -->`."""
    rows = ["| constant | value | source |", "|---|---|---|"]
    rows += [f"| {' | '.join(each)} |" for each in constants()[1]]
    found = {"constants": "\n".join(rows)}
    every = checks()
    rows = ["| point | measured, s | model, s | error | source |", "|---|---|---|---|---|"]
    rows += [
        f"| {one.what} | {one.measured:.3g} | {one.predicted:.3g} | {one.error:+.0%} | "
        f"`{one.source}` |"
        for one in every
    ]
    sizes = sorted(abs(one.error) for one in every)
    rows.append(
        f"\nOf {len(every)} points the error is {statistics.median(sizes):.0%} in the middle and "
        f"{sizes[-1]:.0%} at most; {sum(size <= 0.25 for size in sizes)} lie within 25 %."
    )
    found["checks"] = "\n".join(rows)
    rows = ["| point | measured, MB | model, MB |", "|---|---|---|"]
    rows += [f"| {what} | {sent:.1f} | {said:.1f} |" for what, sent, said in bytes_sent()]
    found["bytes"] = "\n".join(rows)
    heads = " | ".join(str(ranks) for ranks in STRONG_RANKS)
    rows = [f"| exchange | {heads} |", "|---" * (1 + len(STRONG_RANKS)) + "|"]
    paper = PAPER["vgg16"].measured
    rows.append(
        "| the paper, measured | "
        + " | ".join(f"{paper[n]}x" if n in paper else "" for n in STRONG_RANKS) + " |"
    )  # fmt: skip
    rows.append("| the paper's model | " + " | ".join(
        _cell(star_seconds(n), COMPUTE) for n in STRONG_RANKS) + " |")  # fmt: skip
    for kind, split in _methods():
        cells = " | ".join(_cell(strong(kind, n, split), COMPUTE) for n in STRONG_RANKS)
        rows.append(f"| {_named(kind, split)} | {cells} |")
    found["paper"] = "\n".join(rows)
    for number, device in enumerate(devices()):
        for network in NETWORKS:
            found[f"{network} {number}"] = _projected(device, network)
    return found


def _projected(device: Device, network: str) -> str:
    one = IMAGES * device.image_seconds[network]
    heads = " | ".join(f"{ranks:,}" for ranks in RANKS)
    rows = [f"| Gbit/s | exchange | {heads} |", "|---" * (2 + len(RANKS)) + "|"]
    for gbit in LINKS:
        for kind, split in _methods():
            cells = []
            for ranks in RANKS:
                seconds = weak(device, network, kind, ranks, gbit, split)
                cells.append(_cell(seconds, ranks * one))
            rows.append(f"| {gbit} | {_named(kind, split)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _methods() -> list[tuple[str, bool]]:
    return [*((kind, False) for kind in EXCHANGES), *((kind, True) for kind in SPLIT)]


def _named(kind: str, split: bool) -> str:
    return f"{kind}, split" if split else kind


def _cell(seconds: float, alone: float) -> str:
    """Seconds a step, and how many times as many images a second as one rank."""
    speed_up = alone / seconds
    return f"{_digits(seconds)} s, {_digits(speed_up)}x"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def filled(page: str) -> str:
    """The page with its tables."""
    for name, table in tables().items():
        head, found, rest = page.partition(f"<!-- {name} -->\n")
        if not found:
            raise SystemExit(f"{PAGE.name} has no place for {name}")
        _, end, tail = rest.partition("<!-- end -->")
        page = f"{head}{found}{table}\n{end}{tail}"
    return page


def draw() -> None:
    """Speed-up by ranks: with the paper's devices and batch; and with many images on an H200."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    every = [2**power for power in range(1, 9)]
    left.plot([1, *every], [1, *every], color="0.7", linestyle="--", label="linear")
    left.plot(every, [star_seconds(1) / star_seconds(n) for n in every], "k:",
              label="the paper's model")  # fmt: skip
    left.plot(*zip(*PAPER["vgg16"].measured.items(), strict=True), "ks", label="the paper")
    shown = [("star-dynamic8", False), ("float32", False), ("dynamic8", False), ("lowrank", False),
             ("lowrank8", False), ("dynamic8", True)]  # fmt: skip
    for color, (kind, split) in enumerate(shown):
        left.plot(every, [COMPUTE / strong(kind, n, split) for n in every], f"C{color}-",
                  linewidth=1.2, label=f"{_named(kind, split)}, model")  # fmt: skip
    base, curves = paper_curves()
    for color, kind in ((0, "star-dynamic8"), (2, "dynamic8")):
        points = {ranks: base / seconds for ranks, seconds in curves.get(kind, {}).items()}
        left.plot(points.keys(), points.values(), f"C{color}o", label=f"{kind}, measured")
    left.set(title=f"VGG16, batch {STRONG_BATCH}, {COMPUTE:g} s of computing, 1 Gbit/s")
    device, some = devices()[1], [2**power for power in range(1, 11)]
    one = IMAGES * device.image_seconds["resnet50"]
    right.plot([1, *some], [1, *some], color="0.7", linestyle="--", label="linear")
    for color, kind in enumerate(("float32", "dynamic8", "lowrank8"), 1):
        for gbit, style in zip(LINKS, (":", "--", "-"), strict=True):
            speed = [n * one / weak(device, "resnet50", kind, n, gbit, False) for n in some]
            right.plot(
                some, speed, f"C{color}{style}", linewidth=1.2, label=f"{kind}, {gbit} Gbit/s"
            )
    right.set(title=f"ResNet50, {IMAGES} images a rank on {device.name}")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set(xlabel="ranks", ylabel="speed-up")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure_work()
    PAGE.write_text(filled(PAGE.read_text()))
    draw()
    print(tables()["checks"])


if __name__ == "__main__":
    main()
