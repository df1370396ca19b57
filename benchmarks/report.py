"""Figures as JSON, and as text beside it with their circumstances above them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 200
"""Columns of the tables in files."""


def write(path: Path, found: Mapping[str, Any], tables: Iterable[Table]) -> None:
    """PATH.json and PATH.txt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    with path.with_suffix(".txt").open("w") as file:
        show(Console(file=file, width=WIDTH), found, tables)


def show(console: Console, found: Mapping[str, Any], tables: Iterable[Table]) -> None:
    """Print all of it."""
    for line in lines(found):
        console.print(line, highlight=False, markup=False)
    for table in tables:
        console.print()
        console.print(table)
    for line in missing(found):
        console.print(line, highlight=False, markup=False)


def missing(found: Mapping[str, Any]) -> list[str]:
    """What has been left out, and why, each in a sentence."""
    return [f"Not measured: {what}" for what in found.get("left_out", [])]


def lines(found: Mapping[str, Any]) -> list[str]:
    """The command, the machine, and what each side computes with."""
    machine = found["machine"]
    load = f", load {found['load']} before" if found.get("load") is not None else ""
    said = [
        found["command"],
        f"commit {found['commit']}, {found['date']}; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}{load}",
    ]
    if "ours" in found:
        ours = found["ours"]
        said.append(
            f"{ours['device']}, {ours['platform']} ({ours['platform_version']}, driver "
            f"{ours['driver']}), {ours['units']} units"
        )
    if "pytorch" in found:
        peer = found["pytorch"]
        said.append(
            f"PyTorch {peer['torch']}, {peer['capability']}, {peer['threads']} threads; "
            f"{'; '.join(peer['blas'])}"
        )
    if "numpy" in found:
        peer = found["numpy"]
        said.append(f"NumPy {peer['numpy']}, {peer['blas']}, kernels for {peer['kernel']}")
    return said
