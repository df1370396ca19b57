"""Figure 6 right: VGG16 on devices of a K80's speed behind 1 Gbit/s links, by the paper's star and
by ours, with the paper's model and projections.

Computing is slept (--compute-seconds); all batches, gradients and weights travel for real between
hosts that are network namespaces, which needs root on Linux. The models need nothing.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lab
from measure import SideError, available_memory

from mpitrain.commands.curve import COMPUTE, PAPER, Point, counted, sharded_seconds, star_seconds
from paper.figure6_left import LIBRARY, point
from paper.projection import PROJECTED, hidden_seconds, projection
from paper.projection import draw as draw_curves
from paper.published import PROJECTED as PUBLISHED
from paper.published import SECONDS
from paper.sheet import Sheet, middle
from paper.task import Found, Options, leave_out

TITLE = "Figure 6 right: VGG16, batch 256, by number of ranks"
POINTS = (
    ("star-dynamic8", 4),
    ("star-dynamic8", 8),
    ("dynamic8", 4),
    ("dynamic8", 8),
    ("star-float32", 4),
)
"""Exchanges and ranks: the paper's way, ours, and the paper's without its 8 bits."""
BATCH, LINK = 256, "1gbit"
MOST_STEPS = 2
"""That are counted: one takes 13 to 53 s, which hardly differ."""
MEMORY = 2.2 * 2**30
"""Bytes of a rank on average: weights, gradients and codes of 138 million parameters. Seen: 3.2 GiB
on rank 0, which has the velocity too, and 2.0 on others."""


def _points(options: Options) -> Sequence[tuple[str, int]]:
    return (("star-dynamic8", 2), ("dynamic8", 2)) if options.small else POINTS


def count(options: Options) -> int:
    return len(_points(options))


def measure(options: Options, found: Found) -> Iterator[dict[str, Any]]:
    """One an exchange and number of ranks; none, and why, where there can be no hosts."""
    found["compute_seconds_a_batch"] = COMPUTE
    points = _points(options)
    network, batch, seconds = ("lenet", 32, 0.1) if options.small else ("vgg16", BATCH, COMPUTE)
    found["n"] = steps = min(options.n, MOST_STEPS)
    try:
        with lab.made(max(ranks for _, ranks in points), LINK) as hosts:
            for exchange, ranks in points:
                needed, free = ranks * MEMORY, available_memory()
                if not options.small and free is not None and needed > free:
                    leave_out(
                        found,
                        f"{exchange} with {ranks} ranks: they need {needed / 2**30:.0f} GiB of "
                        f"memory, {free / 2**30:.0f} are free.",
                    )
                    continue
                words = [
                    "--batch-size", str(batch), "--data", f"synthetic:{2 * batch}",
                    "--steps", str(steps + 1), "--compute-seconds", f"{seconds / batch:g}",
                    "--exchange", exchange, "--device", options.device,
                ]  # fmt: skip
                if exchange.startswith("star"):
                    words.append("--no-streaming")  # the paper's clients send what they computed
                mpirun = _mpirun()
                placed = [int(host < ranks) for host in range(len(hosts.names))]
                start = hosts.launcher(mpirun, _is_mpich(mpirun), placed)
                one = point(network, ranks, shlex.join([*start, "-n", "{ranks}"]), words)
                yield {
                    "exchange": exchange,
                    "point": asdict(one) | {"where": LIBRARY.sub("", one.where)},
                    "command": f"mpirun -n {ranks} mpitrain {network} {shlex.join(words)}",
                }
    except lab.NoHostsError as error:
        leave_out(found, f"all of it, these are the models alone: {error}.")


def _mpirun() -> str:
    beside = Path(sys.executable).with_name("mpirun")
    program = str(beside) if beside.is_file() else shutil.which("mpirun")
    if program is None:
        raise SideError("no mpirun; `pip install mpitrain[runtimes]` brings one")
    return program


def _is_mpich(mpirun: str) -> bool:
    said = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=True)
    return "HYDRA" in said.stdout


def brief(row: Mapping[str, Any]) -> str:
    return (
        f"{row['exchange']}, {row['point']['ranks']} ranks: {row['point']['seconds']:.1f} s a step"
    )


def _curves(found: Found) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for row in found["rows"]:
        curves.setdefault(row["exchange"], []).append(Point(**row["point"]))
    return curves


def sheets(found: Found) -> Sequence[Sheet]:
    curves = _curves(found)
    return [*([_measured(found)] if curves else []), *_projected(curves), _modelled()]


def _measured(found: Found) -> Sheet:
    rows = []
    for row in found["rows"]:
        one, star = Point(**row["point"]), row["exchange"] == "star-dynamic8"
        model = star_seconds if star else sharded_seconds
        theirs = [PAPER["vgg16"].measured.get(one.ranks), SECONDS.get(one.ranks)]
        rows.append(
            (
                row["exchange"],
                str(one.ranks),
                middle((one.fastest, one.seconds, one.slowest)),
                f"{COMPUTE / one.seconds:.2f}",
                f"{one.parts['exchange']:.2f}",
                f"{one.bytes_sent / 1e6:,.0f}",
                "-" if "float32" in row["exchange"] else f"{model(one.ranks):.1f}",
                *(f"{each:g}" if star and each else "-" for each in theirs),
            )
        )
    headings = (
        "exchange", "ranks", "s a step", "speed-up", "exchange not hidden, s",
        "MB that rank 0 sends", "model, s", "paper's speed-up", "paper's s",
    )  # fmt: skip
    notes = (
        f"Median (fastest to slowest) of {counted(found['n'], 'step')} after the first one.",
        f"Computing is sleeping for {COMPUTE:.0f} s a batch; what travels is real, over links of 1 "
        f"Gbit/s between hosts that are network namespaces and share {cores_of(found)}.",
        f"Speed-up: against the {COMPUTE:.0f} s of one rank, which were not waited for.",
        "Model: that of the paper's star for `star-dynamic8`, that with shards for `dynamic8`.",
        *(f"`{row['command']}`" for row in found["rows"]),
    )
    return Sheet(TITLE, headings, rows, notes)


def cores_of(found: Found) -> str:
    return f"{found['machine']['cores']} cores"


def _projected(curves: Mapping[str, Sequence[Point]]) -> list[Sheet]:
    rows = [
        (exchange, *(f"{COMPUTE / projection(exchange, found)(n):.1f}" for n in PROJECTED))
        for exchange, found in curves.items()
        if len(found) > 1
    ]
    if not rows:
        return []
    headings = ("exchange", *(f"{n} ranks" for n in PROJECTED))
    note = "From the last measured point: a star's exchange grows with its clients, ours does not."
    return [Sheet("Speed-ups beyond it, projected and not measured", headings, rows, (note,))]


def _modelled() -> Sheet:
    cases = [
        ("K80s", 1, 1, 4, None),
        ("K80s", 1, 1, 8, SECONDS[8]),
        *PUBLISHED,
    ]
    rows = [
        (
            what,
            str(ranks),
            "-" if published is None else f"{published:g}",
            f"{star_seconds(ranks, slowdown, compression):.1f}",
            f"{sharded_seconds(ranks, slowdown):.1f}",
            f"{hidden_seconds(ranks, slowdown):.1f}",
        )
        for what, slowdown, compression, ranks, published in cases
    ]
    headings = (
        "devices", "N", "the paper", "T(N) = g A/N + b N/c", "with shards", "with shards, hidden",
    )  # fmt: skip
    notes = (
        "A = 96.0 s of compute a batch on a K80, b = 2.50 s a client at the server, g the "
        "slowdown, c the further compression.",
        "With shards: g A/N + 2 S (N-1)/(N B), S = 138.4 MB of 8-bit gradient, B = 110.7 MB/s, "
        "without the further compression; hidden: the larger of its two terms.",
    )
    return Sheet("The model behind it, seconds a step, not measured", headings, rows, notes)


def draw(found: Found, path: Path) -> None:
    draw_curves(_curves(found), path)
