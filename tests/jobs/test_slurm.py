"""The job scripts on a real SLURM of two virtual nodes. As root with SLURM installed; elsewhere skipped."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Cluster, missing, wait_for

JOBS = Path(__file__).parents[2] / "jobs"
REASON = missing() or (
    "" if shutil.which("mpitrain", path=Path(sys.executable).parent) else "no mpitrain beside this Python"
)
real = pytest.mark.skipif(bool(REASON), reason=REASON or "all there")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    vendor = "from mpi4py import MPI; print(MPI.get_vendor()[0])"
    library = subprocess.run(
        [sys.executable, "-c", vendor], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    with Cluster(2) as here:
        kind = "pmix" if "Open MPI" in library else "pmi2"
        if kind not in here.mpi_types():
            pytest.skip(f"this SLURM has no --mpi={kind} for {library.strip()}")
        here.environment["SLURM_MPI_TYPE"] = kind
        yield here


def submit(cluster: Cluster, folder: Path, *options: str) -> str:
    return cluster.command("sbatch", "--parsable", str(JOBS / "lenet.sbatch"), *options, folder=folder)


def events(folder: Path, job: str, kind: str) -> list[dict[str, Any]]:
    log = folder / "runs" / f"lenet-{job}" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in found if event["event"] == kind]


def output(folder: Path, job: str) -> str:
    file = folder / f"lenet-{job}.out"
    return "\n" + file.read_text() if file.exists() else ", and no output"


def over(cluster: Cluster, job: str) -> bool:
    state = cluster.command("squeue", "--noheader", "--states=all", f"--job={job}", "--format=%T")
    return state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


@real
@pytest.mark.timeout(120)
def test_lenet_trains_over_two_nodes_and_reads_digits(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path)

    wait_for(lambda: over(cluster, job), 90, "end of the job", lambda: output(tmp_path, job))
    end = events(tmp_path, job, "end")
    assert len(end) == 1, output(tmp_path, job)
    assert end[0]["exit"] == 0
    assert len(end[0]["weights_sha256"]) == 2
    assert len(set(end[0]["weights_sha256"])) == 1
    assert events(tmp_path, job, "start")[0]["ranks"] == 2
    assert events(tmp_path, job, "evaluate")[-1]["top1"] >= 0.98


@real
@pytest.mark.timeout(120)
def test_a_requeued_job_goes_on_and_usr1_ends_it_with_a_checkpoint(cluster: Cluster, tmp_path: Path) -> None:
    endless = ("--epochs", "100000", "--evaluate-every", "100000ep", "--checkpoint-every", "10", "--quiet")
    job = submit(cluster, tmp_path, *endless)
    wait_for(
        lambda: bool(events(tmp_path, job, "checkpoint")), 40, "checkpoint", lambda: output(tmp_path, job)
    )
    cluster.command("scontrol", "requeue", job)

    def goes_on() -> bool:
        starts = events(tmp_path, job, "start")
        return len(starts) == 2 and any(
            event["step"] > starts[1]["step"] for event in events(tmp_path, job, "step")[-1:]
        )

    wait_for(goes_on, 60, "second start", lambda: output(tmp_path, job))
    assert events(tmp_path, job, "start")[1]["step"] >= 10
    cluster.command("scancel", "--signal=USR1", job)
    wait_for(lambda: over(cluster, job), 40, "end after USR1", lambda: output(tmp_path, job))
    assert "ExitCode=75:0" in cluster.command("scontrol", "show", "job", job)
    end, saved = events(tmp_path, job, "end")[-1], events(tmp_path, job, "checkpoint")[-1]
    assert end["exit"] == 75
    assert saved["step"] == end["step"]


@real
@pytest.mark.timeout(120)
def test_a_submitted_training_runs_as_asked(cluster: Cluster, tmp_path: Path) -> None:
    said = cluster.command(
        "mpitrain", "submit", "lenet", "--nodes", "2", "--ntasks-per-node", "2", "--time", "5",
        "--mpi", cluster.environment["SLURM_MPI_TYPE"], "--steps", "30", folder=tmp_path,
    )  # fmt: skip
    job = said.split()[1].rstrip(":")

    wait_for(lambda: over(cluster, job), 90, "end of the job", lambda: output(tmp_path, job))
    (end,) = events(tmp_path, job, "end")
    assert (end["exit"], end["step"]) == (0, 30)
    assert len(end["weights_sha256"]) == 4 and len(set(end["weights_sha256"])) == 1
    assert f"lenet-{job}.out" in said and f"runs/lenet-{job}/log.jsonl" in said


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_job_script_has_resources_and_one_line_to_run(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.startswith("export ") for line in lines[:-1])
    assert lines[-1].startswith("srun --kill-on-bad-exit=1 mpitrain ")
