"""Figure 6 right of the paper on other links, with other options of the training, on more ranks;
as root. `make paper` has the paper's own.

    python benchmarks/scaling.py --lab FOLDER      FOLDER has netlab.sh, nsrun, nsrsh
    python benchmarks/scaling.py --lab FOLDER --link 100mbit --ranks 4,8,16 --exchanges lowrank \
        --more "--dense split --activations dynamic8 --read local" --name split

Computing is slept (--compute-seconds), all batches, gradients and weights travel for real between
lab hosts. Each exchange is a scaling measurement of its own (mpitrain scaling); this puts them
together and projects them to 64 ranks. Writes a table and benchmarks/results/scaling-NETWORK.json
(or scaling-NAME.json) and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lab
from paper.projection import GBIT, PROJECTED, draw, projection

from mpitrain.commands.curve import COMPUTE, PAPER, Point
from mpitrain.commands.scaling import measure, read_point

EXCHANGES = ("dynamic8", "star-dynamic8", "star-float32")
BATCH = 256
RATES = {"100mbit": GBIT / 10, "1gbit": GBIT}
"""Bytes a second of a link, by netlab.sh's words."""


def points(network: str, ranks: Sequence[int], exchange: str, options: Any) -> list[Point]:
    """The measured points of one exchange; those that an earlier, interrupted call has left are
    read."""
    found = []
    for count in ranks:
        folder = options.out / f"{exchange}-{count}"
        if not (folder / "curve.csv").exists():
            more = [
                "--batch-size",
                str(BATCH),
                "--data",
                f"synthetic:{2 * BATCH}",
                "--steps",
                str(options.steps),
            ]
            more += ["--compute-seconds", str(options.seconds / BATCH), "--exchange", exchange]
            more += shlex.split(options.more)
            if exchange.startswith("star"):
                more.append("--no-streaming")  # the paper's clients send when they have computed
            measure(
                network,
                str(count),
                " ".join([*lab.mpirun(options.lab, max(ranks)), "-n", "{ranks}"]),
                folder,
                more,
            )
        found.append(read_point(folder / f"ranks-{count}"))
    return found


def table(curves: dict[str, list[Point]], base: float) -> str:
    lines = [
        f"{'exchange':>14} {'ranks':>5} {'s/step':>8} {'speed-up':>8} {'not hidden':>10} "
        f"{'MB sent':>9}   paper"
    ]
    for exchange, found in curves.items():
        for one in found:
            paper = (
                PAPER["vgg16"].measured.get(one.ranks, "") if exchange == "star-dynamic8" else ""
            )
            lines.append(
                f"{exchange:>14} {one.ranks:5} {one.seconds:8.2f} {base / one.seconds:8.2f} "
                f"{one.parts['exchange']:10.2f} "
                f"{one.bytes_sent / 1e6:9.1f}   {paper}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--network", default="vgg16")
    parser.add_argument("--ranks", default="4,8")
    parser.add_argument("--exchanges", default=",".join(EXCHANGES))
    parser.add_argument(
        "--seconds", type=float, default=94.8, help="of compute a batch on one device"
    )
    parser.add_argument("--steps", type=int, default=3, help="of a run, the first left out")
    parser.add_argument("--link", default="1gbit", choices=RATES)
    parser.add_argument("--more", default="", help="options of every training")
    parser.add_argument("--name", help="of the files of results, instead of the network's")
    parser.add_argument("--out", type=Path, default=Path("runs/scaling-benchmark"))
    options = parser.parse_args()
    ranks, rate = [int(count) for count in options.ranks.split(",")], RATES[options.link]
    lab.shape(options.lab, options.link, max(ranks))
    # One rank sends nothing and sleeps for as long as it was told: nothing to measure.
    curves = {
        name: points(options.network, ranks, name, options) for name in options.exchanges.split(",")
    }
    text = table(curves, options.seconds)
    print(text)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout
    here = {str(options.lab): options.lab.name, str(options.out): options.out.name}
    typed = shlex.join(here.get(word, word) for word in sys.argv)
    facts = {
        "command": f"python {typed}",
        "commit": commit.strip(),
        "machine": (
            f"{platform.machine()}, {os.cpu_count()} cores for all lab hosts; "
            "compute slept, not computed"
        ),
        "n": options.steps - 1,
        "compute_seconds_a_batch": options.seconds,
        "paper_compute_seconds": COMPUTE,
        "curves": {
            name: [
                {
                    "ranks": one.ranks,
                    "seconds": [one.fastest, one.seconds, one.slowest],
                    "speed_up": options.seconds / one.seconds,
                    "parts": dict(one.parts),
                    "bytes_sent": one.bytes_sent,
                }
                for one in found
            ]
            for name, found in curves.items()
        },
        "projection_not_measured": {
            name: {
                n: options.seconds / projection(name, found, options.seconds, rate)(n)
                for n in PROJECTED
                if n > found[-1].ranks
            }
            for name, found in curves.items()
        },
    }
    path = Path(__file__).parent / "results" / f"scaling-{options.name or options.network}.json"
    path.write_text(json.dumps(facts, indent=1) + "\n")
    draw(curves, path.with_suffix(".png"), options.seconds, rate)
    print(f"written: {path.name}, {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
