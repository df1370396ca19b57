"""The allreduce against MPI's own, in turn in one run, on one host and across shaped links.

    python benchmarks/exchange.py --ranks 2
        ranks of this host
    python benchmarks/exchange.py --ranks 4 --links 1gbit,300mbit --lab FOLDER
        lab hosts, as root; FOLDER has netlab.sh, nsrun, nsrsh
    python benchmarks/exchange.py --ranks 4 --per-host 2 --links 1gbit --lab FOLDER
        two ranks on each of two lab hosts

Every method gives every rank the mean of one float32 vector: MPI's own, MPI_Allreduce and a
multiplication. Like MPI's call ours are made without telling each other sizes first, but for "auto,
checked". With "dynamic8, flat" every rank codes, though others share its host. The methods take
turns in random order. Writes a table, with how fast "auto" is beside the best of the plain ways
(the median over turns, and between which two figures it lies for all that chance may do, 19 times
of 20), benchmarks/results/exchange-NAME.json and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lab
import numpy as np

PLAIN = ("MPI float32", "dynamic8", "window")
"""What "auto" should never be slower than: the median over turns of the time of the one with the
least median, by auto's."""
FLAT = "dynamic8, flat"
MPI_S, AGAIN = "MPI float32", "MPI again"
"""MPI's own, and the same once more: how far apart they lie is what this machine cannot tell."""
METHODS = (MPI_S, AGAIN, "float32", "float16", "dynamic8", "window", "auto", "auto, checked")
SIZES = tuple(1 << power for power in range(10, 27, 2))
"""Bytes of float32: 1 KiB to 64 MiB."""
ROW = 20e-3
"""Seconds that the quickest method's calls in a row take, timed together, and all others are called
as often. Half as many go before: a link that has rested takes its first bytes faster than it goes
on, and each method would begin where another left links and caches."""
SURE = 1.96
"""Standard deviations on either side: 95 % of what chance does."""


# -- under mpirun
# --------------------------------------------------------------------------------------------------


def work(methods: list[str], sizes: list[int], most: int, seconds: float, out: Path) -> None:
    """What every rank does; rank 0 writes a row for each size and method."""
    from mpi4py import MPI

    import mpitrain
    from mpitrain.exchange.allreduce import taken
    from mpitrain.mpi.wire import library, over

    comm = MPI.COMM_WORLD
    wire, rows, factor = over(comm), [], np.float32(1 / comm.size)
    apart = comm.Dup()
    over(apart, host=comm.rank)
    for size in sizes:
        vector = np.random.default_rng(comm.rank).standard_normal(size // 4).astype(np.float32)
        result = np.empty_like(vector)

        def run(method: str, vector: Any = vector, result: Any = result) -> None:
            if method in (MPI_S, AGAIN):
                comm.Allreduce(vector, result)
                np.multiply(result, factor, out=result)
            else:
                kind, _, how = method.partition(", ")
                mpitrain.allreduce(
                    vector, apart if how == "flat" else comm, kind, result, check=how == "checked"
                )

        times: dict[str, list[tuple[float, float, int]]] = {method: [] for method in methods}
        for method in methods:  # compiles, chooses, and touches all memory
            run(method)
        once = [_timed(comm, wire, partial(run, method), 1)[0] for method in methods]
        row = max(1, min(64, int(ROW / min(once)), int(5 * ROW / max(once))))
        turns, order = most, np.random.default_rng(size)  # the same on every rank
        while len(times[methods[0]]) < turns:
            for number in order.permutation(len(methods)):
                method = methods[number]
                used = over(apart) if method == FLAT else wire
                times[method].append(_timed(comm, used, partial(run, method), row))
            slowest = (row + row // 2) * max(found[-1][0] for found in times.values())
            turns = int(comm.bcast(min(most, max(3, seconds / slowest)), root=0))
        plain = [method for method in PLAIN if method in methods]
        best = min(
            plain, key=lambda method: statistics.median(wall for wall, _, _ in times[method])
        )
        for method, found in times.items():
            walls = [wall for wall, _, _ in found]
            rows.append(
                {
                    "bytes": size,
                    "method": method,
                    "way": taken(vector.size, comm) if method == "auto" else None,
                    "n": len(found),
                    "seconds": [min(walls), statistics.median(walls), max(walls)],
                    "ratio": statistics.median(
                        mpi / wall
                        for (mpi, _, _), wall in zip(times[methods[0]], walls, strict=True)
                    ),
                    "beside_best": median_of(
                        [
                            plain / wall
                            for (plain, _, _), wall in zip(times[best], walls, strict=True)
                        ]
                    ),
                    "cpu_seconds_all_ranks": statistics.median(cpu for _, cpu, _ in found),
                    "bytes_sent_by_a_rank": found[0][2],
                }
            )
    if comm.rank == 0:
        out.write_text(json.dumps({"mpi": library().partition(" (")[0], "rows": rows}))


def median_of(found: list[float]) -> list[float]:
    """The median, and between which two of the values the median of endlessly many lies, 19 times
    of 20: by their places, whatever their distribution."""
    low = max(0, int(len(found) / 2 - SURE / 2 * len(found) ** 0.5))
    ordered = sorted(found)
    return [statistics.median(found), ordered[low], ordered[-1 - low]]


def _timed(comm: Any, wire: Any, run: Callable[[], None], times: int) -> tuple[float, float, int]:
    """Of one call, of so many in a row, after half as many that are not counted: seconds of the
    slowest rank, processor seconds of all ranks, the most bytes that a rank sent (0: not known)."""
    for _ in range(times // 2):
        run()
    comm.Barrier()
    sent, cpu, begin = wire.bytes_sent, time.process_time(), time.perf_counter()
    for _ in range(times):
        run()
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    table = wire.agree.table(np.array([wall, cpu, wire.bytes_sent - sent], np.float64)) / times
    return float(table[:, 0].max()), float(table[:, 1].sum()), int(table[:, 2].max())


# -- who starts them
# --------------------------------------------------------------------------------------------------


def launch(
    link: str, ranks: int, folder: Path | None, methods: list[str], options: Any
) -> dict[str, Any]:
    """The rows of one link (`host`: none) and number of ranks."""
    mpirun = [str(Path(sys.executable).parent / "mpirun")]
    if link != "host":
        assert folder is not None
        hosts = ranks // options.per_host
        lab.shape(folder, link, hosts)
        mpirun = lab.mpirun(folder, hosts, options.per_host)
    with tempfile.TemporaryDirectory() as results:
        out = Path(results) / "rows.json"
        words = [*mpirun, "-n", str(ranks), sys.executable, __file__, "--work", str(out)]
        words += ["--methods", ";".join(methods), "--sizes", options.sizes, "-n", str(options.n)]
        words += ["--seconds", str(options.seconds)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        per_host = ranks if link == "host" else options.per_host
        return {
            "link": link,
            "ranks": ranks,
            "ranks_per_host": per_host,
            **json.loads(out.read_text()),
        }


def table(found: dict[str, Any]) -> str:
    """Median milliseconds a size and method, the ratio to MPI's, and where the 8-bit one begins to
    win."""
    methods = list(dict.fromkeys(row["method"] for row in found["rows"]))
    lines = [f"{_where(found)}, {found['mpi']}: median ms (times as fast as MPI)"]
    lines.append(
        f"{'KiB':>8}" + "".join(f"{method:>20}" for method in methods) + f"{'auto/best':>26}"
    )
    sizes = sorted({row["bytes"] for row in found["rows"]})
    for size in sizes:
        rows = [row for row in found["rows"] if row["bytes"] == size]
        cells = (f"{1e3 * row['seconds'][1]:.3f} ({row['ratio']:.2f})" for row in rows)
        beside = "".join(
            "{:.2f} ({:.2f} to {:.2f}) ".format(*row["beside_best"]) + row["way"]
            for row in rows
            if row["method"] == "auto"
        )
        lines.append(
            f"{size / 1024:8g}" + "".join(f"{cell:>20}" for cell in cells) + f"{beside:>26}"
        )
    return "\n".join(lines)


def _where(found: dict[str, Any]) -> str:
    several = found["link"] != "host" and found.get("ranks_per_host", 1) > 1
    return f"{found['link']}, {found['ranks']} ranks" + (
        f" on {found['ranks'] // found['ranks_per_host']} hosts" if several else ""
    )


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Speed against MPI's over size, a panel a run; where the 8-bit code begins to win is
    marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(runs), 4), layout="constrained")
    for axes, found in zip(
        np.atleast_1d(figure.subplots(1, len(runs), sharey=True)), runs, strict=True
    ):
        for method in dict.fromkeys(row["method"] for row in found["rows"]):
            rows = [row for row in found["rows"] if row["method"] == method]
            sizes, ratios = [row["bytes"] for row in rows], [row["ratio"] for row in rows]
            axes.plot(sizes, ratios, "o-", markersize=3, label=method)
            won = [size for size, ratio in zip(sizes, ratios, strict=True) if ratio > 1]
            if method == "dynamic8" and won:
                axes.axvline(min(won), color="0.7", linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set(xlabel="bytes of float32", title=_where(found))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("times as fast as MPI_Allreduce")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", default="2")
    parser.add_argument("--links", default="host")
    parser.add_argument("--lab", type=Path)
    parser.add_argument("--per-host", type=int, default=1, help="ranks on each lab host")
    parser.add_argument("--methods", default=";".join(METHODS), help="with ; between")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("-n", type=int, default=21, help="most counted turns of each")
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="about so long each method takes at each size, but for three turns",
    )
    parser.add_argument("--name", help="of the files of results")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    methods, sizes = options.methods.split(";"), [int(size) for size in options.sizes.split(",")]
    if options.work:
        work(methods, sizes, options.n, options.seconds, options.work)
        return
    runs = []
    for link in options.links.split(","):
        fit = [each for each in methods if link == "host" or each != "window"]
        fit += [FLAT] if link != "host" and options.per_host > 1 and FLAT not in fit else []
        for ranks in map(int, options.ranks.split(",")):
            runs.append(launch(link, ranks, options.lab, fit, options))
            print(table(runs[-1]) + "\n", flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout
    # Where the lab lies is nobody else's concern.
    typed = [
        options.lab.name if options.lab and word == str(options.lab) else word for word in sys.argv
    ]
    facts = {
        "command": "python " + shlex.join(typed),
        "commit": commit.strip(),
        "machine": (
            f"{platform.machine()}, {os.cpu_count()} cores, {len(os.sched_getaffinity(0))} allowed"
        ),
        "runs": runs,
    }
    path = (
        Path(__file__).parent
        / "results"
        / f"exchange-{options.name or options.links.replace(',', '-')}.json"
    )
    path.write_text(json.dumps(facts, indent=1) + "\n")
    draw(runs, path.with_suffix(".png"))
    print(f"written: {path.name}, {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
