"""Every measured point that the model of a step can speak of, and what it says of it: for
projections.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from projected import (
    GBIT,
    LONG,
    STRONG_BATCH,
    codec_seconds,
    constants,
    lab_rows,
    layouts,
    load,
    predicted,
    vector_traffic,
)
from step_model import Computing, exchange_seconds

from mpitrain.commands.traffic import traffic

FIGURE = "paper/figure6-right.json"
"""The paper's curve, measured again."""
LAB_CORES = 2
"""Of the machine, for all lab hosts."""
BYTES = (
    ("vgg16", "dynamic8", 8, 32, False, 260.0),
    ("vgg16", "dynamic8", 8, 32, True, 51.6),
    ("vgg16", "float32", 4, 4, False, 553.4),
    ("vgg16", "float32", 4, 4, True, 60.6),
)
"""Network, exchange, ranks, images of a rank, whether split, and MB that rank 0 sends a step, in
docs/results.md."""


@dataclass(frozen=True)
class Check:
    """A measured point, and what the model says of it."""

    what: str
    source: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def checks() -> list[Check]:
    """All points of single vectors from 16 MiB on, of the paper's curve and of ddp.py."""
    known, _ = constants()
    found = []
    for name in ("exchange-lab.json", "exchange-lab-ranks.json", "exchange-two-a-host.json",
                 "exchange-lab-1g.json"):  # fmt: skip
        for rate, hosts, row in lab_rows(name):
            kind = row["method"]
            if row["bytes"] < LONG or kind not in ("float32", "float16", "dynamic8"):
                continue
            moved = vector_traffic(kind, row["bytes"], hosts)
            # A bare allreduce codes and decodes, and updates nothing.
            bare = replace(known, value_seconds={kind: codec_seconds() * (kind != "float32")})
            values = row["bytes"] // 4
            link, work = exchange_seconds(moved, values, kind, rate / 1000 * GBIT, bare, hosts)
            found.append(
                Check(
                    f"{row['bytes'] >> 20} MiB, {kind}, {hosts} hosts, {rate:,} Mbit/s",
                    name,
                    row["seconds"][1],
                    max(link, work * hosts / LAB_CORES),
                )
            )
    base, curves = paper_curves()
    for kind, points in curves.items():
        for ranks, seconds in points.items():
            said = predicted("vgg16", kind, ranks, 1, Computing(base / ranks), STRONG_BATCH / ranks)
            words = f"VGG16, slept, {kind}, {ranks} ranks, 1 Gbit/s"
            found.append(Check(words, FIGURE, seconds, said))
    ranks, batch = 4, 16
    rows = [
        (name, row)
        for name in ("ddp-vgg16.json", "ddp-vgg16-100mbit.json")
        for row in load(name)["rows"]
    ]
    for name, row in rows:
        side, kind = row["method"].split(" ")
        if side != "mpitrain" or "seconds" not in row:
            continue
        kind, _, dense = kind.partition("+")
        gbit = float(row["link"].removesuffix("gbit")) if "gbit" in row["link"] else 0.1
        said = predicted(
            "vgg16", kind, ranks, gbit, Computing(batch / 11.1, LAB_CORES), batch / ranks,
            bool(dense), ranks,
        )  # fmt: skip
        words = (
            f"VGG16, batch {batch}, {row['method'].split(' ')[1]}, {ranks} ranks, {gbit:g} Gbit/s"
        )
        found.append(Check(words, name, row["seconds"][1], said))
    return found


def paper_curves() -> tuple[float, dict[str, dict[int, float]]]:
    """Seconds of computing a batch, and those of a step by exchange and ranks."""
    found = load(FIGURE)
    curves: dict[str, dict[int, float]] = {}
    for row in found["rows"]:
        point = row["point"]
        curves.setdefault(row["exchange"], {})[point["ranks"]] = point["seconds"]
    return found["compute_seconds_a_batch"], curves


def bytes_sent() -> Iterator[tuple[str, float, float]]:
    """What, and the MB that rank 0 sends a step, measured and by the model."""
    for network, kind, ranks, images, split, sent in BYTES:
        layout, of_image = layouts(network, ranks, split)
        said = (traffic(kind, layout, ranks).from_root + images * of_image.from_root) / 1e6
        named = f"{kind}, split" if split else kind
        yield f"{network}, {named}, {ranks} ranks with {images} images each", sent, said
