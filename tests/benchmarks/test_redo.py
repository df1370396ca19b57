"""The paper's experiments again: each task in small sizes, what is said when one cannot be done,
and that the page says what the results say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redo
from launcher import OPEN_MPI
from measure import cores
from paper import figure6_left, page, published, sheet, table5
from paper.projection import hidden_seconds, projection

from mpitrain.commands.curve import COMPUTE, Point

SMALL = ("table1", "table3", "table5", "figure6-left", "figure6-right")
"""table4 is table3 with other networks."""


def redo_in(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, redo.__file__, "--small", "-n", "1", "--out", str(out), *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **OPEN_MPI}, check=False
    )


def test_every_task_leaves_figures_a_table_and_a_picture(tmp_path: Path) -> None:
    done = redo_in(tmp_path, *SMALL, "--torch-python", "no-such-python")
    assert done.returncode == 0, done.stderr
    for name in SMALL:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["command"].startswith("python benchmarks/redo.py --small")
        assert str(tmp_path) not in json.dumps(found)
        # Where there can be no hosts figure6-right has none, and says so.
        rows = [redo.TASKS[name].brief(row) for row in found["rows"]]
        assert rows or found["left_out"][0].startswith("all of it")
        assert all(f"{name}: {row}" in done.stderr for row in rows)
        text = " ".join((tmp_path / f"{name}.txt").read_text().split())
        assert all(each.title in text for each in redo.TASKS[name].sheets(found))
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "table3: Not measured: PyTorch: no-such-python cannot be started" in done.stderr
    products = json.loads((tmp_path / "table5.json").read_text())["rows"]
    assert len(products) == 3 and all(row["largest_difference"] < 1e-4 for row in products)
    arrays = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert all(row["largest_difference"] < 1e-4 for row in arrays)


def test_a_task_that_fails_is_said_and_the_next_one_is_done(tmp_path: Path) -> None:
    done = redo_in(tmp_path, "table1", "table5", "--device", "abacus")
    assert done.returncode == 1
    for name in ("table1", "table5"):
        assert f"{name}: failed: --device abacus: no such OpenCL device" in " ".join(
            done.stderr.split()
        )
    assert "failed: table1, table5" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("table2",), "no task table2; there are table1, "),
        (("-n", "0"), "-n 0: expected at least 1"),
        (("--out", str(redo.RESULTS)), "--small needs --out"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = redo_in(tmp_path, *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_the_page_says_what_the_results_say() -> None:
    text = page.PAGE.read_text()
    assert page.rewrite(text, redo.TASKS, redo.RESULTS) == text
    for name in redo.TASKS:
        assert (redo.RESULTS / f"{name}.json").exists(), f"docs/paper.md has no {name}"


def test_a_page_without_a_tasks_marks_is_not_written_silently() -> None:
    with pytest.raises(ValueError, match=r"paper.md has no marks of table1"):
        page.rewrite("# nothing", redo.TASKS, redo.RESULTS)


def test_each_pass_of_a_convolution_has_the_same_work() -> None:
    for layer in published.TABLE5:
        name, m, n, k = layer
        forward, data, weight = table5.products(layer)
        assert forward[1:4] == (m, n, k) and forward[0] == f"{name} forward NN"
        assert {a * b * c for _, a, b, c, _, _ in (forward, data, weight)} == {m * n * k}
        assert weight[3] == m, "the sum of a filter's gradient is over all pixels"


def test_ranks_get_as_many_cores_as_they_are_until_there_are_no_more() -> None:
    if cores() > 1 and shutil.which("taskset"):
        first = min(os.sched_getaffinity(0))
        assert figure6_left.launcher(1, shown=True) == f"taskset -c {first} mpirun -n {{ranks}}"
    assert figure6_left.launcher(cores(), shown=True) == "mpirun -n {ranks}"


def test_a_star_is_projected_to_grow_with_its_clients_and_shards_are_not() -> None:
    parts = {"compute": 12.0, "exchange": 1.0, "wait": 0.0}
    last = Point(8, 256, 2, 20.0, 20.0, 20.0, parts, 250e6, 0, "")
    assert projection("star-dynamic8", [last])(15) == pytest.approx(COMPUTE / 15 + 8 * 2)
    assert projection("dynamic8", [last])(16) == pytest.approx(COMPUTE / 16 + 8)
    assert hidden_seconds(16, slowdown=10) == pytest.approx(60)
    assert hidden_seconds(1000) == pytest.approx(2.5, abs=0.01)


def test_a_cell_has_the_spread_where_there_is_one() -> None:
    assert sheet.middle([0.001, 0.002, 0.1], 1e3) == "2 (1 to 100)"
    assert sheet.middle([2.0, 2.0, 2.0]) == "2"
    one = sheet.Sheet("T", ("a", "b"), [("x", "1")], ("Said.",))
    assert one.markdown() == "T.\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n\n- Said."
