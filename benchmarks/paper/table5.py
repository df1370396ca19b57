"""Table 5: matrix products of the shapes of VGG16's convolutions at batch 16, ours beside NumPy's
BLAS."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gemm
from gemm import COLUMNS, ROWS
from measure import Side, SideError, available_memory

from mpitrain.commands.curve import counted
from paper import bars
from paper.published import TABLE5
from paper.sheet import Sheet, middle, short
from paper.task import Found, Options, leave_out

TITLE = "Table 5: matrix products of VGG16's convolutions at batch 16, GFLOP/s"
PASSES = ("forward NN", "backward-data NT", "backward-filter TN")
SMALL = (("small", 96, 16, 27),)


def _layers(options: Options) -> Sequence[tuple[str, int, int, int]]:
    return SMALL if options.small else TABLE5


def products(layer: tuple[str, int, int, int]) -> list[gemm.Product]:
    """The product of each pass: x (M, K) times weight (K, N); dy (M, N) times weight'; x' times
    dy."""
    name, m, n, k = layer
    forward, data, weight = (f"{name} {each}" for each in PASSES)
    return [
        (forward, m, n, k, ROWS, ROWS),
        (data, m, k, n, ROWS, COLUMNS),
        (weight, k, n, m, COLUMNS, ROWS),
    ]


def count(options: Options) -> int:
    return len(PASSES) * len(_layers(options))


def measure(options: Options, found: Found) -> Iterator[dict[str, Any]]:
    """One a layer and pass. Products that do not fit into this machine's memory are left out."""
    with (
        Side(sys.executable, "side_mpitrain.py") as ours,
        Side(sys.executable, "side_numpy.py") as theirs,
    ):
        found["ours"], found["numpy"] = ours("open", device=options.device), theirs("open")
        for layer in _layers(options):
            for product in products(layer):
                needed, free = memory(product), available_memory()
                if free is not None and needed > free:
                    leave_out(
                        found,
                        f"{product[0]}: it needs {needed / 2**30:.1f} GiB of memory, "
                        f"{free / 2**30:.1f} are free.",
                    )
                    continue
                try:
                    yield from gemm.rows(ours, theirs, options.n, None, [product])
                except SideError as error:
                    leave_out(found, f"{product[0]}: {error}.")
    if not found["rows"]:
        raise SideError(f"none could be measured: {found['left_out'][0]}")


def memory(product: gemm.Product) -> int:
    """Bytes at most: ours has a packed copy of A, and one of the host's beside the device's;
    NumPy's side has what it multiplies."""
    _, m, n, k, _, _ = product
    a, b, c = 4 * m * k, 4 * k * n, 4 * m * n
    return 3 * a + 2 * b + c + (a + b + c)


def brief(row: Mapping[str, Any]) -> str:
    ours, theirs = (row[side]["gflops"][1] for side in ("ours", "numpy"))
    return f"{row['what']}: {short(ours)} GFLOP/s, NumPy {short(theirs)}"


def sheets(found: Found) -> Sequence[Sheet]:
    rows = [
        (
            row["what"],
            f"{row['m']:,} x {row['n']:,} x {row['k']:,}",
            middle(row["ours"]["gflops"]),
            middle(row["numpy"]["gflops"]),
            middle(row["ratio"]),
        )
        for row in found["rows"]
    ]
    headings = ("product", "M x N x K", "mpitrain", "NumPy", "NumPy's time / mpitrain's")
    notes = (
        f"Median (minimum to maximum) of {counted(found['n'], 'turn')}.",
        "M, N and K are those of the product itself.",
        "The text of the paper has the shapes and no times.",
    )
    return [Sheet(TITLE, headings, rows, notes)]


def draw(found: Found, path: Path) -> None:
    panels: dict[str, list[bars.Bar]] = {}
    for row in found["rows"]:
        layer, _, kind = row["what"].rpartition(" ")[0].rpartition(" ")
        panel = panels.setdefault(f"{kind} {row['what'].rpartition(' ')[2]}", [])
        panel.append((layer, row["ours"]["gflops"][1], "ours"))
        panel.append(("", row["numpy"]["gflops"][1], "peer"))
    names = {"ours": "mpitrain", "peer": "NumPy's BLAS"}
    bars.draw(panels, "GFLOP/s", names, path, logarithmic=False, foot=bars.hardware(found))
