"""The floors of the house: imports go down or stay in their room, and each outside world has one door."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, KERNELS = ROOT / "mpitrain", ROOT / "kernels"
FLOORS = {
    0: ("config", "report", "watchdog"),
    1: ("runtime",),
    2: ("layers", "data", "exchange", "sgd"),
    3: ("graph", "models", "layout", "plan"),
    4: ("step", "feed", "facts", "state", "stop", "inject", "evaluate", "predict", "model", "checkpoint"),
    5: ("train", "summary", "scaling"),
    6: ("cli", "__main__", "__init__"),
}
"""Rooms by floor; a folder is a room, and so is a file beside the folders."""
ONE_ROOM = {0: "settings and words", 3: "networks", 4: "the hops of a job", 5: "whole jobs", 6: "the command"}
"""Floors whose files are one room: they may know each other, as long as nobody's imports go in a circle."""
DOORS = {"pyopencl": "runtime", "mpi4py": "exchange.wire", "click": "cli"}


def _modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


MODULES = _modules()


def _imports(path: Path, top_only: bool = False) -> set[str]:
    """Dotted names that a file imports, `mpitrain.` cut off where it stands; with `top_only` those that it needs to be imported."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    nodes = list(tree.body) if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if name.removeprefix("mpitrain.") in MODULES} or {node.module}
    return {name.removeprefix("mpitrain.") for name in found}


def _room(module: str) -> str:
    return module.split(".")[0]


def _floor(module: str) -> int:
    floors = [floor for floor, rooms in FLOORS.items() if _room(module) in rooms]
    assert len(floors) == 1, f"{module} stands on {len(floors)} floors; write it into FLOORS"
    return floors[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_or_stay_in_their_room(module: str) -> None:
    for other in _imports(MODULES[module]) & MODULES.keys():
        if other in ("__init__", "kernels"):
            continue
        same_room = _room(other) == _room(module) or (
            _floor(other) == _floor(module) and _floor(module) in ONE_ROOM
        )
        assert same_room or _floor(other) < _floor(module), f"{module} imports {other}, which is not below it"


def test_no_imports_go_in_a_circle() -> None:
    needs = {name: _imports(path, top_only=True) & MODULES.keys() for name, path in MODULES.items()}
    settled: set[str] = set()
    while len(settled) < len(needs):
        ready = {name for name, others in needs.items() if name not in settled and others - {name} <= settled}
        assert ready, f"these import each other: {sorted(needs.keys() - settled)}"
        settled |= ready


@pytest.mark.parametrize(("library", "door"), DOORS.items())
def test_each_outside_library_has_one_door(library: str, door: str) -> None:
    users = {
        name
        for name, path in MODULES.items()
        if any(each.split(".")[0] == library for each in _imports(path))
    }
    assert users, f"nobody imports {library}"
    assert all(name == door or name.startswith(f"{door}.") for name in users), users


def test_every_program_has_a_file_and_every_kernel_file_a_program() -> None:
    text = "".join(path.read_text() for path in MODULES.values())
    named = set(re.findall(r'program\(\s*"(\w+)"', text))
    files = {path.stem for path in KERNELS.rglob("*.cl")}
    assert named == files


def test_no_kernel_hides_in_python() -> None:
    guilty = [name for name, path in MODULES.items() if "__kernel" in path.read_text()]
    assert not guilty


def test_every_file_opens_with_its_purpose() -> None:
    for name, path in MODULES.items():
        purpose = ast.get_docstring(ast.parse(path.read_text()))
        assert purpose and purpose.split("\n")[0].endswith((".", ":", ";")), (
            f"{name} does not say what it is for"
        )
    for path in KERNELS.rglob("*.cl"):
        assert path.read_text().startswith("/* "), f"{path.name} does not open with its equation"
