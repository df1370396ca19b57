"""Whole training steps against PyTorch: images in, momentum SGD's update out, without MPI."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from measure import Side, SideError, rates, ratios, spread, take_turns
from rich.table import Table

BATCHES = {"lenet": 64, "vgg16": 16, "resnet152": 8}
"""Networks, and images in a step of theirs."""
LAYOUTS = ("channels-last", "contiguous")


def rows(networks: Sequence[str], device: str, torch_python: str, n: int) -> Iterator[dict[str, Any]]:
    """One a network. Both sides are fresh processes, so that their peak of memory is this network's."""
    for network in networks:
        batch = BATCHES[network]
        with Side(torch_python, "side_pytorch.py") as theirs:
            theirs("open")  # says what is missing before anything has been measured
        with Side(sys.executable, "side_mpitrain.py") as ours:
            ours("open", device=device)
            about = ours("step", network=network, batch=batch)
            tried = {layout: _try(torch_python, network, layout, about["decay"]) for layout in LAYOUTS}
            layout = min(LAYOUTS, key=tried.__getitem__)
            with Side(torch_python, "side_pytorch.py") as theirs:
                theirs("open")
                peer = theirs("step", network=network, batch=batch, layout=layout, decay=about["decay"])
                if peer["parameters"] != about["parameters"]:
                    raise SideError(f"{network}: {about['parameters']} parameters, PyTorch's has {peer}")
                a, b = take_turns(partial(ours, "time", name="step"), partial(theirs, "time", name="step"), n)
                yield {
                    "network": network,
                    "batch": batch,
                    "work_gflop": round(about["work"] / 1e9, 3),
                    "ours": _side(ours, batch, about["work"], a) | {"planned_memory": about["planned"]},
                    "pytorch": _side(theirs, batch, about["work"], b)
                    | {"layout": layout, "optimizer": peer["optimizer"], "tried_seconds": tried},
                    "ratio": ratios(a, b),
                }


def _try(torch_python: str, network: str, layout: str, decay: float) -> float:
    """Seconds of PyTorch's step in a layout: the better of two, after one that does not count."""
    with Side(torch_python, "side_pytorch.py") as side:
        side("open")
        side("step", network=network, batch=BATCHES[network], layout=layout, decay=decay)
        side("time", name="step")
        return float(min(side("time", name="step") for _ in range(2)))


def _side(side: Side, batch: int, work: float, seconds: Sequence[float]) -> dict[str, Any]:
    loss = side("loss")
    if not math.isfinite(loss):
        raise SideError(f"{side.name}: the loss is {loss}; that is no training")
    return {
        "seconds": spread(seconds),
        "images_per_second": rates(batch, seconds),
        "gflops": rates(work / 1e9, seconds),
        "peak_memory": side("memory"),
        "loss": loss,
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What was found, a network a line."""
    table = Table(
        title=f"Training steps, n = {found['n']}: minimum / median / maximum",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("network", "batch", "ours, s", "img/s", "GiB", "PyTorch, s", "img/s", "GiB", "its layout"):
        table.add_column(name, justify="left" if name in ("network", "its layout") else "right")
    table.add_column("PyTorch's s / ours", justify="right")
    for row in found["rows"]:
        cells = [row["network"], str(row["batch"])]
        for side in (row["ours"], row["pytorch"]):
            cells += [
                three(side["seconds"]),
                f"{side['images_per_second'][1]:.4g}",
                f"{side['peak_memory'] / 2**30:.2f}",
            ]
        table.add_row(*cells, row["pytorch"]["layout"], three(row["ratio"]))
    table.caption = (
        "GiB: peak resident memory of the side's process. Layout: the faster of two that were tried."
    )
    return [table]


def three(values: Sequence[float]) -> str:
    """A spread in a cell."""
    return " / ".join(f"{each:.3g}" if each < 100 else f"{each:.0f}" for each in values)
