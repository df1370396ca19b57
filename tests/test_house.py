"""The floors of the house: imports go down or stay in their room, and each outside world has one
door."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, KERNELS = ROOT / "mpitrain", ROOT / "kernels"
ROOMS = (
    ("job",),
    ("mpi", "runtime", "watch"),
    ("engine", "data"),
    ("layers", "exchange"),
    ("network",),
    ("training",),
    ("commands",),
    ("__init__", "__main__"),
)
"""Floors from the ground up, and the rooms on each. A folder is a room; imports go down or stay in
their room."""
DOORS = {
    "pyopencl": "runtime",
    "mpi4py": "mpi",
    "click": "commands.cli",
    "onnx": "network.onnx_model",
}


def _modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


MODULES = _modules()


def _imports(path: Path, top_only: bool = False) -> set[str]:
    """Dotted names that a file imports, `mpitrain.` cut off where it stands; with `top_only` those
    that it needs to be imported."""
    return _names(ast.parse(path.read_text()), top_only)


def _names(tree: ast.Module, top_only: bool) -> set[str]:
    found: set[str] = set()
    nodes = list(tree.body) if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if name.removeprefix("mpitrain.") in MODULES} or {
                node.module
            }
    return {name.removeprefix("mpitrain.") for name in found}


def _room(module: str) -> str:
    return module.split(".")[0]


def _floor(module: str) -> int:
    floors = [floor for floor, rooms in enumerate(ROOMS) if _room(module) in rooms]
    assert len(floors) == 1, f"{module} stands on {len(floors)} floors; write it into ROOMS"
    return floors[0]


def test_every_room_on_a_floor_is_there_and_stands_once() -> None:
    rooms = [room for floor in ROOMS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == {_room(module) for module in MODULES}


def test_imports_say_the_whole_name() -> None:
    """The other tests read names; a relative import would pass them by."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), (
                f"{name}, line {node.lineno}"
            )


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_or_stay_in_their_room(module: str) -> None:
    for other in _imports(MODULES[module]) & MODULES.keys():
        if other == "__init__":
            continue
        assert _room(other) == _room(module) or _floor(other) < _floor(module), (
            f"{module} imports {other}, which is not below it"
        )


def test_the_floors_are_as_few_as_the_imports_allow_and_at_most_nine() -> None:
    """A room stands right above the highest room that it imports, counted from the imports
    themselves."""
    below: dict[str, set[str]] = {_room(module): set() for module in MODULES}
    for module, path in MODULES.items():
        others = {_room(other) for other in _imports(path) & MODULES.keys()}
        below[_room(module)] |= others - {_room(module), "__init__"}

    def height(room: str) -> int:
        return 1 + max((height(other) for other in below[room]), default=0)

    heights = {room: height(room) for room in below}
    assert max(heights.values()) <= 9
    too_high = {room for room, found in heights.items() if found > _floor(f"{room}.x") + 1}
    assert not too_high


def test_no_imports_go_in_a_circle() -> None:
    needs = {name: _imports(path, top_only=True) & MODULES.keys() for name, path in MODULES.items()}
    settled: set[str] = set()
    while len(settled) < len(needs):
        ready = {
            name
            for name, others in needs.items()
            if name not in settled and others - {name} <= settled
        }
        assert ready, f"these import each other: {sorted(needs.keys() - settled)}"
        settled |= ready


def test_codecs_and_the_wire_do_not_know_each_other() -> None:
    for codec in ("exchange.codec", "exchange.codec_numpy", "exchange.codec_protocol"):
        for module, path in MODULES.items():
            if _room(module) == "mpi":
                assert module not in _imports(MODULES[codec])
                assert codec not in _imports(path)


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


def test_every_header_is_included_and_every_include_is_there() -> None:
    included = set()
    for path in (*KERNELS.rglob("*.cl"), *KERNELS.rglob("*.h")):
        included |= set(re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE))
    assert included == {path.relative_to(KERNELS).as_posix() for path in KERNELS.rglob("*.h")}


def test_a_kernel_has_one_form_for_all_or_one_for_each_kind_of_device_or_suits_one_kind_alone() -> (
    None
):
    forms: dict[str, set[str]] = {}
    for path in KERNELS.rglob("*.cl"):
        forms.setdefault(path.stem, set()).add(path.parent.relative_to(KERNELS).as_posix())
    for name, places in forms.items():
        assert places in ({"."}, {"cpu", "gpu"}, {"cpu"}, {"gpu"}, {"nvidia"}), (
            f"{name} is in {sorted(places)}"
        )


def test_no_line_of_a_kernel_is_longer_than_the_linter_allows_in_python() -> None:
    files = [*KERNELS.glob("*.[ch]*"), *KERNELS.glob("cpu/*.[ch]*")]
    lines = (
        (path, number, line)
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
    )
    long = [f"{path.relative_to(ROOT)}:{number}" for path, number, line in lines if len(line) > 100]
    assert not long


def test_no_kernel_hides_in_python() -> None:
    guilty = [name for name, path in MODULES.items() if "__kernel" in path.read_text()]
    assert not guilty


def test_every_file_opens_with_its_purpose() -> None:
    for name, path in MODULES.items():
        purpose = ast.get_docstring(ast.parse(path.read_text()))
        assert purpose and purpose.split("\n\n")[0].endswith((".", ":", ";")), (
            f"{name} does not say what it is for"
        )
    for path in KERNELS.rglob("*.cl"):
        assert path.read_text().startswith("/* "), f"{path.name} does not open with its equation"


def test_every_file_of_tests_has_a_name_of_its_own() -> None:
    """Pytest imports them by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(set(names)) == len(names), sorted(names)


SKIPS = {
    "test_house.py": "this one",
    "drills/test_demo.py": "a browser is no package of Python; CI installs one",
    "drills/test_trace.py": "a browser is no package; MPICH ends a job when a rank dies",
    "data/test_idx.py": "root may read every file, so none is unreadable",
    "training/hooks/test_compare.py": "one rank sends nothing, and has nobody to differ from",
    "exchange/test_exchange.py": "one rank sends nothing, and float32 codes nothing",
    "drills/launcher.py": "/proc is Linux's; that mpirun is there is tested below",
    "drills/test_outcomes.py": (
        "PoCL's wheel is for x86 alone; tests/runtime/test_platforms.py fails where it is missing"
    ),
    "drills/test_survivors.py": "MPICH ends a job when a rank dies; .ci/run runs it under Open MPI",
    "commands/test_scaling.py": (
        "a system's MPI need not lie beside this Python; signals are POSIX's"
    ),
    "drills/test_hosts.py": "several hosts are network namespaces, which need root on Linux",
    "drills/test_machine.py": "disks that fail and limits of memory are root's on Linux",
    "layers/conv/test_tensor_ptx.py": (
        "clang and NVIDIA's assembler are no pip packages; it says which kernel was not assembled"
    ),
    "tensor_cores.py": "tensor cores are NVIDIA's; the summary counts the tests that need them",
    "jobs/test_slurm.py": "SLURM is a system's package and wants root; .ci/run installs it",
}
"""Files of tests that may skip, and why that does not hide what `pip install .[runtimes,tests]`
should have brought."""


def test_nothing_that_is_missing_is_skipped_silently() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        name = path.relative_to(ROOT / "tests").as_posix()
        used = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        assert "importorskip" not in used, name
        assert not used & {"skip", "skipif"} or name in SKIPS, (
            f"{name} skips; write the reason into SKIPS"
        )


@pytest.mark.skipif(sys.platform != "linux", reason="the wheels of MPI are for Linux")
def test_the_launcher_that_others_skip_without_is_here() -> None:
    assert shutil.which("mpirun", path=str(Path(sys.executable).parent)) or shutil.which("mpirun")


def test_the_floors_see_a_wrong_import() -> None:
    """The reading itself: names as they are written, in functions, under TYPE_CHECKING and with an
    alias."""
    text = (
        "import a.b as c\nif TYPE_CHECKING:\n    from mpitrain.network.graph import Graph\n"
        "def f():\n    from mpitrain.training import train, step\n"
    )
    assert _names(ast.parse(text), top_only=False) == {
        "a.b",
        "network.graph",
        "training.train",
        "training.step",
    }
    assert _names(ast.parse(text), top_only=True) == {"a.b"}


def test_every_event_of_the_log_is_written_down() -> None:
    calls = re.compile(r"\.event\(\s*\"(\w+)\"")
    said = {name for path in MODULES.values() for name in calls.findall(path.read_text())}
    page = (ROOT / "docs/log.md").read_text()
    assert {"start", "step", "end"} <= said
    assert said == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_the_walks_name_files_and_functions_that_are_there() -> None:
    """Rows of CONTRIBUTING.md such as | 2 | `network/graph.py` `Graph.backward` | ... |: a file,
    and names in it."""
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| \d+ \| (`[\w/.]+\.py`.*?)\|", guide, re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        text = ""
        for word in re.findall(r"`([\w/.]+)`", row):
            if "/" in word:
                path = ROOT / word if (ROOT / word).is_file() else PACKAGE / word
                text = path.read_text()
            else:
                name = word.split(".")[-1]
                assert re.search(rf"\b{name}\b", text), f"{row}: no {word} there"
