"""Tables of images a second in training: the command by its log, PyTorch beside it where it is
installed, and the paper's rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import steps
from measure import Side, SideError

from mpitrain.commands.curve import counted
from paper import bars
from paper.sheet import Sheet, middle, short
from paper.task import Found, Options, leave_out

Published: TypeAlias = Sequence[tuple[str, str, Mapping[str, tuple[float, int]]]]
SMALL = {"lenet": 4}
"""Steps of a run where sizes are small."""


def measure(networks: Sequence[str], options: Options, found: Found) -> Iterator[dict[str, Any]]:
    """One a network, on one rank."""
    with Side(sys.executable, "side_mpitrain.py") as ours:
        found["ours"] = ours("open", device=options.device)
    peer = _peer(options, found)
    run = SMALL if options.small else steps.STEPS
    found["steps"] = {network: run[network] for network in networks}
    yield from steps.rows(networks, options.device, peer, options.n, ranks=(1,), steps=run)


def _peer(options: Options, found: Found) -> str | None:
    """The Python of PyTorch; None where it is not installed, or would compute on another device."""
    if found["ours"]["kind"] != "cpu":
        leave_out(
            found,
            "PyTorch, which `python benchmarks/compute.py steps` measures on the same GPU.",
        )
        return None
    try:
        with Side(options.torch_python, "side_pytorch.py") as theirs:
            found["pytorch"] = theirs("open")
    except SideError as error:
        leave_out(found, f"PyTorch: {error}.")
        return None
    return options.torch_python


def brief(row: Mapping[str, Any]) -> str:
    """A row while one waits for the next."""
    said = f"{row['network']}: {short(row['ours']['images_per_second'][1])} images/s"
    if "pytorch" in row:
        said += f", PyTorch {short(row['pytorch']['images_per_second'][1])}"
    return said


def sheet(title: str, published: Published, found: Found) -> Sheet:
    """A row a software, a column a network; the batch is in each cell of the paper's."""
    rows, networks = found["rows"], [row["network"] for row in found["rows"]]
    lines = [
        (where, software, *(_cell(speeds.get(network)) for network in networks))
        for where, software, speeds in published
    ]
    place = f"here, {found['machine']['cores']} cores"
    if all("pytorch" in row for row in rows):
        lines.append((place, f"PyTorch {found['pytorch']['torch']}", *_speeds(rows, "pytorch")))
    lines.append((place, f"mpitrain, {found['ours']['platform']}", *_speeds(rows, "ours")))
    if all("ratio" in row for row in rows):
        ratio = tuple(middle(row["ratio"]) for row in rows)
        lines.append((place, "PyTorch's time / mpitrain's", *ratio))
    notes = [
        f"Here: median (minimum to maximum) of {counted(found['n'], 'run')} of "
        f"{' and '.join(dict.fromkeys(map(str, found['steps'].values())))} steps, "
        "the first two and the last uncounted, by the command's log.",
        *(f"`{row['command']}`" for row in rows),
    ]
    return Sheet(title, ("where", "software", *networks), lines, tuple(notes), words=2)


def _cell(speed: tuple[float, int] | None) -> str:
    return "-" if speed is None else f"{short(speed[0])} (batch {speed[1]})"


def _speeds(rows: Sequence[Mapping[str, Any]], side: str) -> tuple[str, ...]:
    return tuple(middle(row[side]["images_per_second"]) for row in rows)


def draw(published: Published, found: Found, path: Path) -> None:
    """A panel a network."""
    panels: dict[str, list[bars.Bar]] = {}
    names = {"paper": "the paper", "peer": "PyTorch here", "ours": "mpitrain here"}
    for row in found["rows"]:
        network = row["network"]
        panel: list[bars.Bar] = [
            (f"{where}, {software}, batch {speeds[network][1]}", speeds[network][0], "paper")
            for where, software, speeds in published
            if network in speeds
        ]
        for side, name, kind in (("pytorch", "PyTorch", "peer"), ("ours", "mpitrain", "ours")):
            if side in row:
                speed = row[side]["images_per_second"][1]
                panel.append((f"{name}, batch {row['batch']}", speed, kind))
            else:
                names.pop(kind, None)
        panels[f"{network}, one rank"] = panel
    bars.draw(panels, "images/s", names, path, foot=bars.hardware(found))
