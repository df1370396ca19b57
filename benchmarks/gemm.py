"""Matrix products against NumPy's BLAS, in turn in one run: `python benchmarks/gemm.py --device intel`.

Writes a table and benchmarks/results/gemm-PLATFORM.json: GFLOPS as minimum, median and maximum of n runs, and the ratio pair by pair.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mpitrain.runtime.device import open_device
from mpitrain.runtime.gemm import Gemm, Left, Result, matrix

SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (64, 50176, 576), (512, 784, 4608), (64, 500, 800))
"""M, N, K: square ones, two of VGG16's convolutions for one image, LeNet's first dense layer."""


PAUSE = 0.2
"""Seconds before each timed run: a BLAS's threads spin for a while after their work, and would take a core from the other's turn."""


def seconds_of(work: Callable[[], None]) -> float:
    time.sleep(PAUSE)
    work()  # awake, and what the other has pushed out of the caches is back
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(device_name: str, runs: int) -> dict[str, Any]:
    device = open_device(device_name)
    gemm, random, rows = Gemm(device), np.random.default_rng(0), []
    for m, n, k in SHAPES:
        a, b = random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)
        left, right = device.upload(a), device.upload(b)
        c, scratch = device.empty((m, n)), device.empty((max(1, gemm.scratch(m, k)),))
        out = np.empty((m, n), np.float32)

        def ours(
            c: Any = c,
            left: Any = left,
            right: Any = right,
            scratch: Any = scratch,
            m: int = m,
            n: int = n,
            k: int = k,
        ) -> None:
            gemm(Result(c, n, n), Left(left, k, 1, k), matrix(right, n, 1), m, n, k, scratch)
            device.finish()

        def theirs(a: Any = a, b: Any = b, out: Any = out) -> None:
            np.matmul(a, b, out=out)

        for _ in range(2):
            ours(), theirs()
        error = float(np.abs(c.download() - out).max())
        pairs = [(seconds_of(ours), seconds_of(theirs)) for _ in range(runs)]
        work = 2 * m * n * k / 1e9
        rows.append(
            {
                "shape": [m, n, k],
                "ours": _spread([work / x for x, _ in pairs]),
                "numpy": _spread([work / y for _, y in pairs]),
                "ratio": _spread([y / x for x, y in pairs]),
                "largest_difference": error,
            }
        )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    blas: Any = np.show_config(mode="dicts")
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "machine": f"{platform.machine()}, {device!r}",
        "driver": device.identity,
        "numpy": f"{np.__version__}, {blas['Build Dependencies']['blas']['name']}",
        "n": runs,
        "unit": "GFLOPS",
        "rows": rows,
    }


def _spread(values: list[float]) -> list[float]:
    return [round(value, 2) for value in (min(values), statistics.median(values), max(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-n", type=int, default=15, help="counted runs of each")
    options = parser.parse_args()
    found = measure(options.device, options.n)
    print(f"{found['machine']}; {found['numpy']}; n = {found['n']}; GFLOPS as min / median / max")
    for row in found["rows"]:
        spreads = ("{:8.1f} / {:8.1f} / {:8.1f}".format(*row[name]) for name in ("ours", "numpy"))
        print(
            "{:>18}  ours {}  numpy {}  ratio {:.2f}".format(
                "x".join(map(str, row["shape"])), *spreads, row["ratio"][1]
            )
        )
    name = found["driver"].split("|")[0].split("(")[0].split()[0].lower()
    path = Path(__file__).parent / "results" / f"gemm-{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
