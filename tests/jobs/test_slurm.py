"""The job scripts on a real SLURM of two virtual nodes. As root with SLURM installed; elsewhere
skipped."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Cluster, missing, wait_for

from mpitrain.commands import cli
from mpitrain.commands.submit import Job, launcher, mpi_type, script
from mpitrain.job.config import Run

JOBS = Path(__file__).parents[2] / "jobs"
REASON = missing() or (
    ""
    if shutil.which("mpitrain", path=Path(sys.executable).parent)
    else "no mpitrain beside this Python"
)
real = pytest.mark.skipif(bool(REASON), reason=REASON or "all there")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as here:
        yield here


def submit(cluster: Cluster, folder: Path, *options: str) -> str:
    return cluster.command(
        "sbatch", "--parsable", str(JOBS / "lenet.sbatch"), *options, folder=folder
    )


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
    return state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY")


@real
def test_scripts_find_how_the_ranks_of_this_mpi_are_started(cluster: Cluster) -> None:
    """Debian's SLURM has pmix where libpmix-dev is installed, too."""
    kind = mpi_type(cluster.environment)
    words = launcher(kind if kind in cluster.mpi_types() else "mpirun")
    assert cluster.command("mpitrain", "launcher") == words


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


STEPS = 300
WORK = (
    "--steps",
    str(STEPS),
    "--epochs",
    "999",
    "--evaluate-every",
    "999ep",
    "--checkpoint-every",
    "999ep",
    "--exchange",
    "float32",
    "--sub-batch",
    "32",
)


@real
@pytest.mark.timeout(280)
def test_a_job_whose_time_is_up_again_and_again_comes_to_the_weights_of_one_that_is_not_stopped(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Allotments of a minute, told 20 seconds before their end to save, which SLURM does up to 30
    seconds early: each about half a minute."""
    limit = ("--time=1", "--signal=USR1@20", str(JOBS / "lenet.sbatch"))
    slow = (
        "--inject",
        "delay=0.04",
    )  # messages come late, for some 45 s in all; what they say is the same
    job = cluster.command("sbatch", "--parsable", *limit, *WORK, *slow, folder=tmp_path)
    straight = submit(cluster, tmp_path, *WORK)
    for each in (job, straight):
        wait_for(
            lambda each=each: over(cluster, each),
            220,
            "end",
            lambda each=each: output(tmp_path, each),
        )

    starts, ends = events(tmp_path, job, "start"), events(tmp_path, job, "end")
    said = output(tmp_path, job)
    assert len(starts) > 1, said
    assert [start["restarts"] for start in starts] == list(range(len(starts))), said
    assert [end["exit"] for end in ends] == [75] * (len(starts) - 1) + [0], said
    assert [start["step"] for start in starts] == [0, *(end["step"] for end in ends[:-1])]
    steps = [event["step"] for event in events(tmp_path, job, "step")]
    assert steps == list(range(1, STEPS + 1)), "a step is lost, or done twice"
    (other,) = events(tmp_path, straight, "end")
    assert ends[-1]["weights_sha256"] == other["weights_sha256"]
    assert "ExitCode=0:0" in cluster.command("scontrol", "show", "job", job)


@real
@pytest.mark.parametrize("mpi", ["auto", "mpirun"])
@pytest.mark.timeout(120)
def test_a_submitted_training_runs_as_asked(cluster: Cluster, tmp_path: Path, mpi: str) -> None:
    """By srun, and by the MPI's own mpirun, as where SLURM lacks what the MPI needs."""
    said = cluster.command(
        "mpitrain",
        "submit",
        "lenet",
        "--nodes",
        "2",
        "--ntasks-per-node",
        "2",
        "--time",
        "5",
        "--mpi",
        mpi,
        "--steps",
        "30",
        folder=tmp_path,
    )
    job = said.split()[1].rstrip(":")

    wait_for(lambda: over(cluster, job), 90, "end of the job", lambda: output(tmp_path, job))
    (end,) = events(tmp_path, job, "end")
    assert (end["exit"], end["step"]) == (0, 30)
    assert len(end["weights_sha256"]) == 4 and len(set(end["weights_sha256"])) == 1
    assert f"lenet-{job}.out" in said and f"runs/lenet-{job}/log.jsonl" in said


@real
@pytest.mark.timeout(120)
def test_a_curve_is_drawn_of_jobs_that_hold_no_more_nodes_than_they_use(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The first point is put back into the queue while it runs, as after a node's failure."""
    options = ("--steps", "20", "--compute-seconds", "0.002")  # a step of 0.24 s on one rank
    text = cluster.command(
        "bash",
        str(JOBS / "scaling.sh"),
        "--comment=curve",
        "--",
        *options,
        folder=tmp_path,
        NODES="1 2",
    )
    one, two, last = re.findall(r"^job (\d+): ", text, re.MULTILINE)
    (folder,) = (tmp_path / "runs").iterdir()

    def said() -> str:
        return "".join(
            f"\n{file.name}: {file.read_text()}" for file in sorted(folder.glob("*.out"))
        )

    def count(words: str) -> int:
        log = folder / "ranks-1" / "log.jsonl"
        return log.read_text().count(words) if log.exists() else 0

    wait_for(lambda: count('"step": 3,') > 0, 60, "third step", said)
    cluster.command("scontrol", "requeue", one)
    wait_for(lambda: over(cluster, last), 90, "end of the last job", said)
    assert count('"event": "start"') == 2, said()
    for job, nodes in ((one, 1), (two, 2), (last, 1)):
        facts = cluster.command("scontrol", "show", "job", job)
        assert f"NumNodes={nodes} " in facts and "Comment=curve" in facts
        assert "ExitCode=0:0" in facts, said()
    header, *rows = (folder / "curve.csv").read_text().splitlines()
    assert header.startswith("ranks,")
    assert [row.split(",")[0] for row in rows] == ["1", "2"], said()
    assert "left out" not in (folder / "curve.txt").read_text()
    assert (folder / "curve.png").stat().st_size > 1000


LIAR = """#!/bin/bash
$(mpitrain launcher) "$@" &
if [ "$LIES" = early ]; then
    until grep -qs '"step": 3,' runs/*/log.jsonl; do sleep 0.1; done
    kill -KILL $!
    exit 0
fi
wait $!
exit 14
"""
"""A launcher like those whose daemon died with its host: it ends with 0 before its ranks have, or
with another code than theirs."""


@real
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("lies", "code"), [("early", 1), ("late", 0)])
def test_a_jobs_end_is_its_runs_end_whatever_the_launcher_says(
    cluster: Cluster, tmp_path: Path, lies: str, code: int
) -> None:
    """And what it prints goes to a folder, and SETUP is read first."""
    liar, setup = tmp_path / "liar", tmp_path / "setup"
    liar.write_text(LIAR)
    liar.chmod(0o755)
    setup.write_text("echo hello from the setup\n")
    (tmp_path / "logs").mkdir()
    steps = ("--steps", "15") if lies == "late" else ("--epochs", "1000")
    job = cluster.command(
        "sbatch",
        "--parsable",
        "--output=logs/%x-%j.out",
        str(JOBS / "lenet.sbatch"),
        *steps,
        folder=tmp_path,
        LAUNCH=str(liar),
        LIES=lies,
        SETUP=str(setup),
    )
    out = tmp_path / "logs" / f"lenet-{job}.out"
    wait_for(lambda: over(cluster, job), 90, "end of the job", lambda: out.read_text())
    text = out.read_text()
    assert f"ExitCode={code}:0" in cluster.command("scontrol", "show", "job", job), text
    assert text.startswith("hello from the setup\n")
    if lies == "early":
        assert f"the launcher ended with 0, but runs/lenet-{job}/log.jsonl has no end" in text
    else:
        assert "the launcher ended with 14, the training with 0" in text


SAME = ("--signal=", "--requeue", "--open-mode=", "--output=")


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_job_script_has_resources_and_one_line_to_run(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines.pop(0) == '. "${SETUP:-/dev/null}"', "modules and a venv come first"
    assert all(line.startswith("export ") for line in lines[:-1])
    run, _, end = lines[-1].partition("; ")
    found = re.fullmatch(r'\$\{LAUNCH:\?\} mpitrain \w+ .* --out ("\S+") "\$@"', run)
    assert found
    assert end == f'mpitrain requeue $? --out {found[1]} "$@"'
    assert not re.search(r"/home|/work|/root|/scratch", path.read_text())


@pytest.mark.parametrize("network", ["lenet", "vgg16", "resnet152"])
def test_the_scripts_say_what_submit_writes(network: str) -> None:
    """One form for both: what is asked of SLURM beside resources, and the line to run."""
    theirs = (JOBS / f"{network}.sbatch").read_text().splitlines()
    ours = script(network, [], Job(mpi="pmi2")).splitlines()
    kept = [
        [line for line in text if line.startswith(tuple(f"#SBATCH {each}" for each in SAME))]
        for text in (theirs, ours)
    ]
    assert kept[0] == kept[1]
    options = shlex.split(theirs[-1].partition(" --resume")[0])[3:]
    Run(**cli.train.make_context("train", [network, *options]).params)
    written = script(network, options, Job(mpi="pmi2")).splitlines()[-1]
    words = shlex.join(options)
    run, end = theirs[-1].replace("${LAUNCH:?}", launcher("pmi2")).split("; ")
    # A file's further options come last; they may name another run directory.
    run = run.replace(f" {words} ", " ", 1).replace(' "$@"', f" {words}", 1)
    end = end.removesuffix(' "$@"')
    assert f"{run}; {end}" == written
