"""What `make test` says of several parts, on several ranks: tests that are made here, in the real
pytest under the real mpirun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import every
import pytest

EVERY = Path(__file__).with_name("every.py")
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
GOOD = """
import os
import pytest

RANK = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")))
SEVERAL = "PMI_RANK" in os.environ or "OMPI_COMM_WORLD_RANK" in os.environ

def test_of_one_process():
    pass

@pytest.mark.mpi
def test_of_all_ranks():
    pass

@pytest.mark.mpi(min_size=2)
def test_of_two_ranks():
    pass

@pytest.mark.skip(reason="there is no moon")
def test_by_moonlight():
    pass
"""
BAD = """
@pytest.mark.mpi
def test_of_rank_1():
    print("heard on rank", RANK)
    assert RANK != 1, "rank 1 is wrong"
"""
DIES = """
@pytest.mark.mpi
def test_that_ends_its_process():
    if SEVERAL and RANK == 1:
        os._exit(7)
"""


def run_every(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_made.py").write_text(text)
    return subprocess.run(
        [sys.executable, str(EVERY), *words, str(folder)],
        env={**os.environ, **OPEN_MPI},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def summary(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines from the count of tests on, without their times."""
    lines = done.stdout.splitlines()
    (start,) = (number for number, line in enumerate(lines) if " tests in " in line)
    return [" ".join(line.split(", ")[0].split()) for line in lines[start + 1 :]]


def test_a_test_that_any_part_has_run_is_not_skipped(tmp_path: Path) -> None:
    done = run_every(tmp_path, GOOD, "--ranks", "1,2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary(done) == [
        "1 process 1 tests",
        "1 rank 1 tests",
        "2 ranks 2 tests",
        "skipped",
        "1 test_made.py there is no moon",
    ]
    assert ": 3 passed, 1 skipped" in done.stdout
    assert "MPI Information" not in done.stdout


TESTS = EVERY.parent
DRILLS, JOBS = map(str, every.JOBS)


@pytest.mark.parametrize(
    ("words", "beside", "alone"),
    [
        ([], ["tests"], [DRILLS, JOBS]),
        ([str(TESTS)], [str(TESTS)], [DRILLS, JOBS]),
        (["tests/layers/../drills"], [], ["tests/layers/../drills"]),
        (["tests/jobs", "tests/job"], ["tests/job"], ["tests/jobs"]),
        (["tests/drills/test_stops.py::test_a"], [], ["tests/drills/test_stops.py::test_a"]),
    ],
    ids=str,
)
def test_drills_and_jobs_run_alone(
    words: list[str], beside: list[str], alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS.parent)
    found = {start.name: start.options for start in every.starts(words, [])}
    assert found.get("jobs", []) == alone
    rest = found.get("1 process", [])
    assert rest[: len(beside)] == beside and bool(rest) == bool(beside)
    assert [word for word in rest if "--ignore" in word] == [
        f"--ignore={job}" for job in alone if rest
    ]


def test_what_fails_on_another_rank_is_shown_and_is_the_last_part(tmp_path: Path) -> None:
    done = run_every(tmp_path, GOOD + BAD, "--ranks", "2,1")
    assert done.returncode == 1
    assert "heard on rank 1" in done.stdout and "heard on rank 0" not in done.stdout
    assert "AssertionError: rank 1 is wrong" in done.stdout
    assert summary(done)[-2:] == ["failed", "test_made.py::test_of_rank_1 (rank 1"]
    assert "1 rank not run" in summary(done)


def test_a_rank_that_dies_fails_its_part(tmp_path: Path) -> None:
    done = run_every(tmp_path, GOOD + BAD + DIES, "--ranks", "2")
    assert done.returncode == 1
    assert "AssertionError: rank 1 is wrong" in done.stdout, "what it said before is lost"
    assert "test_that_ends_its_process (rank 1, 2 ranks): the process ended" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def test_wrong():\n    assert 1 == 2\n", "test_made.py::test_wrong"),
        ("import nowhere_to_be_found\n", "test_made.py"),
        ("", "pytest ended with 5"),
    ],
    ids=["test", "import", "none"],
)
def test_a_failure_of_one_process_is_the_summarys_last_line(
    tmp_path: Path, text: str, said: str
) -> None:
    done = run_every(tmp_path, text, "--ranks", "1")
    assert done.returncode == 1
    assert summary(done)[-2:] == ["failed", said]
