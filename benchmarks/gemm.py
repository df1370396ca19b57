"""Matrix products against NumPy's BLAS: square ones, some of convolutions, and those of dense
layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from measure import Side, rates, ratios, spread, take_turns
from rich.table import Table
from steps import three

ROWS, COLUMNS = "rows", "columns"
Product: TypeAlias = tuple[str, int, int, int, str, str]
"""What it is; M, N, K; and whether A (M, K) and B (K, N) lie in rows or in columns: y = x weight',
dx = dy weight, dweight = dy' x."""
SHAPES: tuple[Product, ...] = (
    ("square", 1024, 1024, 1024, ROWS, ROWS),
    ("square", 2048, 2048, 2048, ROWS, ROWS),
    ("vgg16 features.2, one image", 64, 50176, 576, ROWS, ROWS),
    ("vgg16 features.19, one image", 512, 784, 4608, ROWS, ROWS),
    ("lenet fc1, batch 64: y", 64, 500, 800, ROWS, COLUMNS),
    ("lenet fc1: dx", 64, 800, 500, ROWS, ROWS),
    ("lenet fc1: dweight", 500, 800, 64, COLUMNS, ROWS),
    ("vgg16 fc6, batch 16: y", 16, 4096, 25088, ROWS, COLUMNS),
    ("vgg16 fc6: dx", 16, 25088, 4096, ROWS, ROWS),
    ("vgg16 fc6: dweight", 4096, 25088, 16, COLUMNS, ROWS),
    ("resnet152 fc, batch 8: y", 8, 1000, 2048, ROWS, COLUMNS),
)


def rows(
    ours: Side, theirs: Side, n: int, peak: float | None, shapes: Sequence[Product] = SHAPES
) -> Iterator[dict[str, Any]]:
    """One a product. peak: GFLOPS of the device, where it is known."""
    for what, m, n_, k, a_lies, b_lies in shapes:
        shape: dict[str, Any] = {"m": m, "n": n_, "k": k, "a_lies": a_lies, "b_lies": b_lies}
        difference = ours("product", **shape)
        theirs("product", **shape)
        a, b = take_turns(
            partial(ours, "time", name="product"), partial(theirs, "time", name="product"), n
        )
        alone = [ours("time", name="product alone") for _ in range(n)]
        work = 2e-9 * m * n_ * k
        yield {
            "what": what,
            **shape,
            "ours": {"seconds": spread(a), "gflops": rates(work, a)},
            "ours_alone": {"seconds": spread(alone), "gflops": rates(work, alone)},
            "numpy": {"seconds": spread(b), "gflops": rates(work, b)},
            "ratio": ratios(a, b),
            **({"of_peak": round(rates(work, a)[1] / peak, 4)} if peak else {}),
            "largest_difference": difference,
        }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What was found, a product a line."""
    table = Table(
        title=f"Matrix products, n = {found['n']}: GFLOPS, minimum / median / maximum",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("product")
    for name in ("M x N x K", "ours", "NumPy", "NumPy's s / ours", "of peak", "ours alone"):
        table.add_column(name, justify="right")
    for row in found["rows"]:
        sides = (three(row[side]["gflops"]) for side in ("ours", "numpy"))
        size = f"{row['m']} x {row['n']} x {row['k']}"
        table.add_row(
            row["what"],
            size,
            *sides,
            three(row["ratio"]),
            f"{row['of_peak']:.0%}",
            three(row["ours_alone"]["gflops"]),
        )
    table.caption = (
        f"Peak: {found['peak']['gflops']:.0f} GFLOPS, {found['peak']['source']}. Ours are queued "
        "in a row with one wait at the end, "
        "as in training; alone: with a wait after each."
    )
    return [table]
