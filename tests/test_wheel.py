"""What is in the wheel and in the source distribution: all of the package, kernels and job scripts,
and nothing else. `installed.py` runs the commands of an installed one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mpitrain import __version__

ROOT = Path(__file__).parents[1]
NAME = f"mpitrain-{__version__}"
SOURCES = ("mpitrain", "kernels", "jobs", "tests")
ABOUT = ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md")
SHARED = f"{NAME}.data/data/share/mpitrain/jobs"
BUILD = "from setuptools import build_meta; build_meta.build_{kind}('dist')"
"""What `python -m build` and `pip wheel` call, once they have fetched setuptools."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with what lies about in one that is worked in, and both
    distributions of it."""
    tree = tmp_path_factory.mktemp("wheel") / "tree"
    tree.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=lying_about)
    for name in ABOUT:
        shutil.copy(ROOT / name, tree)
    for folder in ("mpitrain/data", "kernels", "kernels/cpu", "jobs"):
        (tree / folder / "__pycache__").mkdir()
        (tree / folder / "__pycache__" / "order.cpython-311.pyc").write_bytes(b"cache")
        (tree / folder / "gemm.cl~").write_text("what an editor leaves")
    for kind in ("sdist", "wheel"):
        build(kind, tree)
    return tree


def lying_about(folder: str, names: list[str]) -> list[str]:
    """Caches, hidden files, and links such as mpitrain/kernels, which an editor follows."""
    return [
        name
        for name in names
        if name == "__pycache__" or name[0] == "." or (Path(folder) / name).is_symlink()
    ]


def build(kind: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind=kind)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "absent from the `packages`" not in done.stdout + done.stderr, done.stderr


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def wanted(tree: Path) -> dict[str, bytes]:
    """Where a wheel has each file of the checkout that it needs."""
    places = {"mpitrain": "mpitrain", "kernels": "mpitrain/kernels", "jobs": SHARED}
    return {
        f"{place}/{path.relative_to(tree / name).as_posix()}": path.read_bytes()
        for name, place in places.items()
        for path in (tree / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".cl~"
    }


def test_the_wheel_has_every_file_of_the_package_and_no_other(tree: Path) -> None:
    packed = contents(tree / "dist" / f"{NAME}-py3-none-any.whl")
    about = {name for name in packed if name.startswith(f"{NAME}.dist-info/")}
    files = {name: text for name, text in packed.items() if name not in about}
    assert sorted(files) == sorted(wanted(tree))
    assert files == wanted(tree)
    metadata = packed[f"{NAME}.dist-info/METADATA"].decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert (tree / "README.md").read_text() in metadata
    assert b"mpitrain = mpitrain.commands.cli:main" in packed[f"{NAME}.dist-info/entry_points.txt"]


def test_the_source_distribution_builds_the_same_wheel(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(tree / "dist" / f"{NAME}.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    tops = {path.name for path in (tmp_path / NAME).iterdir()}
    assert "tests" not in tops and {"jobs", "kernels", *ABOUT} <= tops
    build("wheel", tmp_path / NAME)
    wheel = f"dist/{NAME}-py3-none-any.whl"
    assert contents(tmp_path / NAME / wheel) == contents(tree / wheel)
