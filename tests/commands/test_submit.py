"""Job scripts as text, and what `mpitrain submit` says before and after sbatch has them (a real
SLURM takes one in tests/jobs)."""

from __future__ import annotations

import math
import shlex
import stat
from pathlib import Path

import pytest

from mpitrain.commands import cli
from mpitrain.commands.submit import (
    MPIRUN,
    Job,
    follow,
    launcher,
    mpi_type,
    script,
    seconds,
    submit,
)
from mpitrain.job.errors import RunError, UserError

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=vgg16
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=2
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --partition=long
#SBATCH --account=physics
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# srun gives a rank its share of cores only if told so again (since SLURM 22.05)
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

"""


def fake(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that stand for a cluster's: sbatch keeps what it is given."""
    fake(tmp_path, "srun", "echo 'MPI plugin types are...'; echo none; echo pmi2; echo cray_shasta")
    fake(tmp_path, "sbatch", f"cat > {tmp_path}/script; echo '17;cluster'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_a_script_is_what_was_asked_for_and_one_line_to_run() -> None:
    job = Job(
        nodes=4, ntasks_per_node=2, cpus_per_task=8, gpus_per_node=2, mem="64G", time="24:00:00",
        partition="long", account="physics", mpi="pmix",
    )  # fmt: skip
    text = script("vgg16", ["--epochs", "3"], job)
    assert text.startswith(SCRIPT)
    (line,) = text.removeprefix(SCRIPT).splitlines()[:1]
    start, _, end = line.partition("; ")
    assert (
        start == "srun --mpi=pmix --kill-on-bad-exit=1 mpitrain vgg16 --resume "
        '--out "runs/vgg16-$SLURM_JOB_ID" --epochs 3'
    )
    assert end == 'mpitrain requeue $? --out "runs/vgg16-$SLURM_JOB_ID"'


def test_words_reach_the_training_as_they_were_typed() -> None:
    odd = ["--data", "my images/$HOME", "--out", "it's here", "--resume", "a b.safetensors"]
    *_, line = (
        line
        for line in script("nets/a b.toml", odd, Job(mpi="pmi2")).splitlines()
        if "srun " in line and line[0] != "#"
    )
    words = shlex.split(line.partition("; ")[0])
    at = words.index("mpitrain")
    assert words[at : at + 8] == ["mpitrain", "nets/a b.toml", *odd]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10", 600),
        ("1:30", 90),
        ("02:00:00", 7200),
        ("2-0", 172800),
        ("1-2:30", 95400),
        ("1-0:0:1", 86401),
        ("unlimited", math.inf),
    ],
)
def test_times_are_those_of_sbatch(text: str, found: float) -> None:
    assert seconds(text) == found


def test_the_signal_leaves_a_short_job_most_of_its_time() -> None:
    leads = [
        script("lenet", [], Job(time=time)).partition("USR1@")[2].split()[0]
        for time in ("1", "8", "UNLIMITED")
    ]
    assert leads == ["15", "120", "120"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"nodes": 0}, "--nodes 0: must be at least 1"),
        ({"gpus_per_node": -1}, "--gpus-per-node -1: must be at least 0"),
        ({"time": "soon"}, "--time soon: expected"),
        ({"time": "0"}, "--time 0: no time"),
        ({"time": "9" * 5000}, "--time 9+: expected"),
        ({"account": "a\n#SBATCH --uid=0"}, "expected one word"),
        ({"mpi": "openmpi"}, "--mpi openmpi: expected one of auto, pmi2, pmix, mpirun"),
    ],
)
def test_what_cannot_be_asked_is_said(asked: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Job(**asked)  # type: ignore[arg-type]


def test_the_mpi_beside_this_python_or_else_the_one_of_path_chooses(
    slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mpi_type({}) in ("pmi2", "pmix")
    monkeypatch.setattr("mpitrain.commands.submit.PACKAGES", ())
    for said, kind in (("HYDRA build details:", "pmi2"), ("mpirun (Open MPI) 4.1.4", "pmix")):
        fake(slurm, "mpirun", f"echo '{said}'")
        assert mpi_type({"PATH": f"{slurm}:/usr/bin:/bin"}) == kind
    with pytest.raises(UserError, match="submit with --mpi pmi2"):
        mpi_type({"PATH": "/nowhere"})


def test_ranks_are_started_by_mpirun_where_srun_lacks_what_their_mpi_needs(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What job scripts ask with `mpitrain launcher`, and `mpitrain submit` by itself."""
    for package, words in (("HYDRA", "srun --mpi=pmi2 --kill-on-bad-exit=1"), ("Open MPI", MPIRUN)):
        monkeypatch.setattr("mpitrain.commands.submit.PACKAGES", ())
        monkeypatch.setattr("mpitrain.commands.submit.sys.executable", f"{slurm}/python")
        fake(slurm, "mpirun", f"echo '{package}'")
        cli.commands.main(["launcher"], standalone_mode=False)
        assert capsys.readouterr().out == f"{words}\n"
        submit("lenet", [], Job(), dry_run=True)
        assert f"\n{words} mpitrain lenet --resume" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_MPI_TYPE", "cray_shasta")
    cli.commands.main(["launcher"], standalone_mode=False)
    assert capsys.readouterr().out == "srun --mpi=cray_shasta --kill-on-bad-exit=1\n"


@pytest.mark.parametrize(
    ("package", "mpi", "chosen", "words"),
    [
        ("pmi2", "pmi2", None, "env MPIR_CVAR_CH4_NETMOD=ofi srun --mpi=pmi2"),
        ("pmi2", "pmi2", "ucx", "srun --mpi=pmi2"),
        (None, "pmi2", None, "srun --mpi=pmi2"),
        ("pmix", "pmi2", None, "srun --mpi=pmi2"),
        ("pmix", "pmix", None, "srun --mpi=pmix"),
    ],
    ids=["wheel", "chosen", "site", "other", "pmix"],
)
def test_only_the_wheel_of_mpich_is_told_over_what_to_send(
    monkeypatch: pytest.MonkeyPatch, package: str | None, mpi: str, chosen: str | None, words: str
) -> None:
    """SLURM's pmi2 may not take the long addresses of its default."""
    monkeypatch.setattr("mpitrain.commands.submit.PACKAGES", (("pip", package),) if package else ())
    monkeypatch.delenv("MPIR_CVAR_CH4_NETMOD", raising=False)
    if chosen:
        monkeypatch.setenv("MPIR_CVAR_CH4_NETMOD", chosen)
    assert launcher(mpi) == f"{words} --kill-on-bad-exit=1"


def test_sbatch_gets_the_script_and_the_job_can_be_followed(
    slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(nodes=2, mpi="pmi2")
    submit("lenet", ["--epochs", "1"], job, dry_run=True)
    shown = capsys.readouterr().out
    submit("lenet", ["--epochs", "1"], job, dry_run=False)
    assert (slurm / "script").read_text() == shown == script("lenet", ["--epochs", "1"], job)
    said = capsys.readouterr().out
    assert said == follow("17", "lenet", [], job) + "\n"
    for word in (
        "job 17",
        "2 ranks",
        "squeue --job 17",
        "lenet-17.out",
        "runs/lenet-17/log.jsonl",
        "scancel 17",
    ):
        assert word in said
    assert "elsewhere/log.jsonl" in follow("17", "lenet", ["--out=elsewhere"], job)


def test_what_a_cluster_refuses_is_said_in_its_words(slurm: Path) -> None:
    fake(slurm, "sbatch", "echo 'sbatch: error: invalid account' >&2; exit 1")
    with pytest.raises(RunError, match="sbatch refuses: sbatch: error: invalid account"):
        submit("lenet", [], Job(mpi="pmi2"), dry_run=False)
    with pytest.raises(UserError, match="--mpi pmix: srun has pmi2 here"):
        submit("lenet", [], Job(mpi="pmix"), dry_run=False)
    (slurm / "sbatch").unlink()
    if not Path("/usr/bin/sbatch").exists():
        with pytest.raises(UserError, match="no sbatch here"):
            submit("lenet", [], Job(mpi="pmi2"), dry_run=False)


def test_options_of_the_training_are_checked_before_a_job_waits(
    slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpitrain.commands.cli.ending.LINGER", 0)
    for wrong in (
        ["--epoch", "3"],
        ["--lr", "-1"],
        ["--schedule", "slow"],
        ["--exchange", "lowrank:99"],
        ["--exchange", "float32:2"],
        ["--engine", "cpu:2"],
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["submit", "lenet", "--nodes", "2", *wrong])
        assert end.value.code == 2
        assert wrong[0] in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["submit", "lnet"])
    assert "lnet" in capsys.readouterr().err
    assert not (slurm / "script").exists()
    with pytest.raises(SystemExit) as end:
        cli.main(["submit", "lenet", "--nodes", "2", "--epochs", "3", "--mpi", "pmi2"])
    assert end.value.code == 0
    assert "#SBATCH --nodes=2\n" in (slurm / "script").read_text()


@pytest.mark.parametrize("mem", ["lots", "32GB", "1.5G", "-1", ""])
def test_memory_that_is_no_amount(mem: str) -> None:
    with pytest.raises(UserError, match="--mem"):
        Job(mem=mem)


def test_gpus_of_the_job_and_of_a_host_are_one_or_the_other() -> None:
    with pytest.raises(UserError, match="--gpus 4 is of the whole job, --gpus-per-node 2 of each"):
        Job(gpus=4, gpus_per_node=2)


def test_what_stands_behind_two_dashes_is_for_sbatch(
    slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lenet", "--nodes", "2", "--mpi", "pmi2", "--dry-run", "--epochs", "3"]
    cli.commands.main(
        ["submit", *words, "--", "--constraint=a100", "--exclusive", "-C", "big"],
        standalone_mode=False,
    )
    out = capsys.readouterr().out
    assert "#SBATCH --constraint=a100\n#SBATCH --exclusive\n#SBATCH -C big\n" in out
    assert out.index("#SBATCH --output") < out.index("#SBATCH --constraint")
    assert "--epochs 3; " in out and "--exclusive; " not in out


@pytest.mark.parametrize("words", [["two words"], ["no-option"], ["--comment=a\nb"]])
def test_what_is_no_option_of_sbatch_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="expected options of sbatch"):
        script("lenet", [], Job(mpi="pmi2"), words)


def test_a_folder_for_outputs_and_a_file_to_read_first() -> None:
    job = Job(mpi="pmi2", outputs="logs", setup="env.sh")
    text = script("lenet", [], job)
    assert "#SBATCH --output=logs/%x-%j.out\n" in text
    assert text.index("\n. env.sh\n") < text.index("srun")
    assert "tail -F logs/lenet-17.out" in follow("17", "lenet", [], job)


def test_the_mpi_that_was_chosen_is_said(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit("lenet", [], Job(), dry_run=True)
    assert capsys.readouterr().err.startswith("--mpi ")
