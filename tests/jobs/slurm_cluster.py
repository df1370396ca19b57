"""A SLURM of virtual nodes on this host, for as long as a test lasts: its own munge, controller and
nodes, on free ports, in a folder of its own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "setpriv")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire: a requeued job starts again after about so many seconds, instead of two minutes
# (3 is not accepted)
AuthInfo=socket={folder}/munge.socket,cred_expire=5
# MPICH names shared memory by job and step, and leaves it behind when it is killed: another
# cluster's job of that number could not use it.
# Four digits: docs/decisions.md has what came of eight
FirstJobId={first}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
# pmix wants a folder of each node's own
TmpFS={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
# a virtual node has the CPUs that are written here, whatever the host has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
ReturnToService=2
KillWait=5
{nodes}
PartitionName=test Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Nodes n0, n1, ... with two CPUs each, and the commands to use them. `with Cluster(2) as
    cluster:` always ends what it has started."""

    def __init__(self, nodes: int) -> None:
        self._names = [f"n{number}" for number in range(nodes)]
        self._folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets lie in it
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {
            name: text for name, text in os.environ.items() if not name.startswith("SLURM")
        }
        self.environment |= {
            "SLURM_CONF": str(self._folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",  # the test is root's, Open MPI's mpirun asks twice
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if len(self._daemons) > 1:
            subprocess.run(
                ["scancel", "--user=root"], env=self.environment, capture_output=True, timeout=20
            )
            limit = time.monotonic() + 10
            while self._jobs() and time.monotonic() < limit:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def command(self, *words: str, folder: Path | None = None, **more: str) -> str:
        """What a command of SLURM's prints; `more` are variables of its environment."""
        done = subprocess.run(
            words,
            cwd=folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{self._said()}"
        return done.stdout.strip()

    def mpi_types(self) -> set[str]:
        """What `srun --mpi` can be here."""
        done = subprocess.run(
            ["srun", "--mpi=list"], env=self.environment, capture_output=True, text=True, timeout=20
        )
        return set((done.stdout + done.stderr).split())

    def _start(self) -> None:
        folder = self._folder
        folder.chmod(0o755)
        for name in ("state", *self._names):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        controller, *ports = _free_ports(1 + len(self._names))
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 "
            "RealMemory=4000"
            for name, port in zip(self._names, ports, strict=True)
        ]
        text = CONFIG.format(
            host=host,
            controller=controller,
            folder=folder,
            first=random.randrange(1000, 9000),
            nodes="\n".join(nodes),
            names=",".join(self._names),
        )
        (folder / "slurm.conf").write_text(text)
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        files = {"key": "key", "socket": "socket", "pid": "pid", "log": "log", "seed": "seed"}
        places = [
            f"--{kind}{'' if kind == 'socket' else '-file'}={folder}/munge.{end}"
            for kind, end in files.items()
        ]
        self._daemon("munged", "--foreground", "--force", *places)
        wait_for((folder / "munge.socket").exists, 10, "munge's socket", self._said)
        self._daemon("slurmctld", "-D")
        for name in self._names:
            self._daemon("slurmd", "-D", "-N", name)
        wait_for(self._idle, 30, "idle nodes", self._said)

    def _daemon(self, program: str, *words: str) -> None:
        """Start one in the foreground, as a child which ends when this process does, however that
        ends."""
        with (self._folder / f"{program}.said").open("ab") as said:
            self._daemons.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", program, *words],
                    env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                )
            )  # fmt: skip

    def _idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%T"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        return done.stdout.split() == ["idle"] * len(self._names)

    def _jobs(self) -> str:
        done = subprocess.run(
            ["squeue", "--noheader"], env=self.environment, capture_output=True, text=True
        )
        return done.stdout.strip()

    def _said(self) -> str:
        """The last words of the daemons."""
        logs = sorted(self._folder.glob("*.said"))
        return "".join(
            f"\n{log.name}: " + "\n  ".join(log.read_text().splitlines()[-5:]) for log in logs
        )


def wait_for(
    true: Callable[[], bool], seconds: float, what: str, said: Callable[[], str] = str
) -> None:
    """Look five times a second until it is true."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, f"no {what} after {seconds:.0f} s{said()}"
        time.sleep(0.2)


def missing() -> str:
    """Why no SLURM can be started here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a SLURM for a test needs root on Linux"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        names = ", ".join(absent)
        return f"not installed: {names} (Debian: apt-get install slurm-wlm munge libpmix-dev)"
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        return f"this host's name, {socket.gethostname()}, has no address"
    return ""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
