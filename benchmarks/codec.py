"""The 8-bit code against memcpy, in turn in one run: `taskset -c 1 python benchmarks/codec.py
--device intel`.

GB/s are bytes of float32 values (not of codes, nor of residuals) over seconds, so that all rows,
memcpy too, count the same values. Writes a table and benchmarks/results/codec-PLATFORM.json:
minimum, median and maximum of n runs, and the ratio pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mpitrain.engine.registry import open_device
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_protocol import blocks
from mpitrain.runtime.device import Device

SIZES = (1 << 21, 1 << 24)
"""Values: a bucket (8 MiB), which may stay in a cache, and eight of them (64 MiB), which do not."""


def works(device: Device, kind: str, size: int) -> dict[str, Callable[[], None]]:
    """What is timed on vectors of so many heavy-tailed values, memcpy first."""
    codec, random = make_codec(kind, device), np.random.default_rng(0)
    values = random.standard_normal(size) * np.exp(random.standard_normal(size))
    x, y = (
        device.upload(values.astype(np.float32)),
        device.upload((0.9 * values).astype(np.float32)),
    )
    residual, acc, copy = device.zeros((size,)), device.zeros((size,)), device.zeros((size,))
    codes = codec.bytes(blocks(size) * codec.record)
    codec.encode(codes, x)
    device.finish()

    def memcpy() -> None:
        if device.kind != "cpu":
            copy.copy_from(x)
            return
        with x.host() as source, copy.host(write=True) as target:
            np.copyto(target, source)

    return {
        "memcpy": memcpy,
        "encode": lambda: codec.encode(codes, x),
        "encode, error feedback": lambda: codec.encode(codes, x, residual),
        "encode a difference": lambda: codec.encode(codes, x, minus=y),
        "decode": lambda: codec.decode_add(acc, codes, True),
        "decode and add": lambda: codec.decode_add(acc, codes, False),
    }


ROW = 20
"""Runs that are queued on a GPU before one waits: buckets follow each other in training, too."""


def seconds_of(device: Device, work: Callable[[], None]) -> float:
    times = 1 if device.kind == "cpu" else ROW
    begin = time.perf_counter()
    for _ in range(times):
        work()
    device.finish()
    return (time.perf_counter() - begin) / times


def measure(device_name: str, kind: str, runs: int) -> dict[str, Any]:
    device, rows = open_device(device_name), []
    for size in SIZES:
        found = works(device, kind, size)
        memcpy = found.pop("memcpy")
        pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        for turn in range(runs + 2):
            for name, work in found.items():
                beside = min(seconds_of(device, memcpy) for _ in range(2))
                if turn >= 2:  # the first ones compile and wake up
                    pairs[name].append((seconds_of(device, work), beside))
                else:
                    seconds_of(device, work)
        amount = 4 * size / 1e9
        for name, times in pairs.items():
            rows.append(
                {
                    "values": size,
                    "work": name,
                    "GB/s": _spread([amount / ours for ours, _ in times]),
                    "memcpy": _spread([amount / beside for _, beside in times]),
                    "ratio": _spread([beside / ours for ours, beside in times]),
                }
            )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "machine": (
            f"{platform.machine()}, {device!r}, {len(os.sched_getaffinity(0))} core(s) allowed"
        ),
        "driver": device.identity,
        "code": kind,
        "n": runs,
        "rows": rows,
    }


def _spread(values: list[float]) -> list[float]:
    return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--code", default="dynamic8", choices=("dynamic8", "float16"))
    parser.add_argument("-n", type=int, default=21, help="counted runs of each")
    options = parser.parse_args()
    found = measure(options.device, options.code, options.n)
    print(
        f"{found['machine']}; {found['code']}; n = {found['n']}; GB/s of float32 as min / median / "
        "max"
    )
    for row in found["rows"]:
        spreads = ("{:6.2f} / {:6.2f} / {:6.2f}".format(*row[name]) for name in ("GB/s", "memcpy"))
        print(
            "{:>9,} {:24}{}   memcpy {}   ratio {:.2f}".format(
                row["values"], row["work"], *spreads, row["ratio"][1]
            )
        )
    name = found["driver"].split("|")[0].split("(")[0].split()[0].lower()
    path = Path(__file__).parent / "results" / f"codec-{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
