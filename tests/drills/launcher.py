"""The drills' launcher: real ranks under the real mpirun, bounded in time, with nothing left
running afterwards.

Works with MPICH's mpirun and Open MPI's. A rank is found by the variables that launchers give their
processes, and every process of a drill by one variable of ours, so that a drill can send signals to
a rank and sees it when one stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RANK = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
MARK = "MPITRAIN_DRILL"
LONG = (
    *("lenet", "--exchange", "dynamic8", "--epochs", "1000"),
    *("--checkpoint-every", "5", "--evaluate-every", "1000ep"),
)
"""A training that goes on until something ends it."""
LIMIT = 90.0
"""Seconds that a drill may take, on two cores that others use as well: far more than it needs, far
less than for ever."""
GRACE = 10.0
"""Seconds that ranks may outlive their launcher."""
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    code: int
    """The launcher's exit code (the process's own without a launcher)."""
    out: str
    err: str
    seconds: float
    finished: float
    """When the launcher had ended, as time.time() tells."""
    folder: Path | None
    """The run directory, where the drill named one."""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's events of that name, in order."""
        assert self.folder is not None
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    @property
    def end(self) -> dict[str, Any]:
        """The last event of the log, which must be its end: the only thing to believe (docs:
        launchers' exit codes lie)."""
        *_, last = self.events("end")
        return last

    @property
    def weights(self) -> str:
        """The one hash of all ranks' weights."""
        hashes = set(self.end["weights_sha256"])
        assert len(hashes) == 1, f"ranks hold different weights: {hashes}"
        return str(hashes.pop())

    @property
    def sentences(self) -> list[str]:
        """What mpitrain itself said on stderr; launchers say more."""
        return [
            line for line in self.err.splitlines() if line.startswith(("mpitrain: ", "Error: "))
        ]

    def sentence(self) -> str:
        """The one sentence on stderr, without a traceback."""
        assert "Traceback" not in self.err, self.err
        assert len(self.sentences) == 1, self.err
        return self.sentences[0]


class Job:
    """A job that runs."""

    def __init__(self, mark: str, folder: Path | None) -> None:
        self._mark, self.folder = mark.encode(), folder

    def processes(self) -> dict[int, int | None]:
        """The rank of each of the job's processes, by process id; None for the launcher's own."""
        found: dict[int, int | None] = {}
        for path in Path("/proc").iterdir():
            if not path.name.isdigit():
                continue
            try:
                variables = dict(
                    line.partition(b"=")[::2]
                    for line in (path / "environ").read_bytes().split(b"\0")
                )
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if variables.get(MARK.encode()) == self._mark and state != "Z":
                ranks = [
                    int(variables[name.encode()]) for name in RANK if name.encode() in variables
                ]
                found[int(path.name)] = ranks[0] if ranks else None
        return found

    def kill(
        self, rank: int | None, number: signal.Signals, with_its_witness: bool = False
    ) -> None:
        """Send a rank a signal."""
        found = self.processes()
        for process in [process for process, its_rank in found.items() if its_rank == rank]:
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{process}/stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                if with_its_witness or parent not in found or found[parent] != rank:
                    os.kill(process, number)

    def interrupt(self) -> None:
        """What Ctrl-C on a terminal does: SIGINT to the group of the launcher."""
        os.killpg(min(self.processes()), signal.SIGINT)  # the launcher leads its group

    def wait_for_step(self, step: int) -> None:
        """Return when the log has a step of that number."""
        self.wait_for(f'"step": {step},')

    def wait_for(self, words: str) -> None:
        """Return when the log has these words."""
        assert self.folder is not None
        log = self.folder / "log.jsonl"
        for _ in range(1000):
            if words in (log.read_text() if log.exists() else ""):
                return
            time.sleep(0.05)
        pytest.fail(f"no {words} in {log}")


class Launch:
    """Runs `mpitrain` with arguments on so many ranks, 0 for a process without a launcher."""

    def __init__(self, scratch: Callable[[str], Path]) -> None:
        beside = Path(sys.executable).parent
        found = shutil.which("mpirun", path=str(beside)) or shutil.which("mpirun")
        if found is None or sys.platform != "linux":
            pytest.skip("no mpirun, or no /proc")
        self.mpirun = found
        self.mpitrain = [str(beside / "mpitrain")]
        if not Path(self.mpitrain[0]).exists():
            self.mpitrain = [sys.executable, "-m", "mpitrain"]
        version = subprocess.run(
            [found, "--version"], capture_output=True, text=True, check=False
        ).stdout
        self.exact = "HYDRA" in version
        """Whether the launcher hands on its ranks' exit codes."""
        self._scratch = scratch

    def __call__(
        self,
        *arguments: object,
        ranks: int = 0,
        out: Path | None = None,
        program: Sequence[object] | None = None,
        each: Sequence[Sequence[object]] = (),
        env: Mapping[str, str] | None = None,
        meanwhile: Callable[[Job], None] | None = None,
        flags: Sequence[object] = (),
    ) -> Ended:
        """out: the run directory, given as --out. program: instead of mpitrain. each: further
        arguments of each rank. flags: the launcher's.

        Fails the test if the job does not end in time, or leaves a process behind.
        """
        command = [*(self.mpitrain if program is None else program), *arguments]
        command += ["--out", out] if out else []
        if each:
            parts = [["-n", 1, *command, *its] for its in each]
            command = [
                self.mpirun,
                *parts[0],
                *(word for part in parts[1:] for word in (":", *part)),
            ]
        elif ranks:
            command = [self.mpirun, *flags, "-n", ranks, *command]
        mark, place = uuid.uuid4().hex, self._scratch("launch")
        environment = {**os.environ, **OPEN_MPI, **(env or {}), MARK: mark}
        begin = time.monotonic()
        with (place / "out").open("wb") as stdout, (place / "err").open("wb") as stderr:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=stdout,
                stderr=stderr, cwd=place, env=environment, start_new_session=True,
            )  # fmt: skip
        job, code = Job(mark, out), None
        try:
            if meanwhile is not None:
                meanwhile(job)
            code = process.wait(LIMIT)
            seconds, finished = time.monotonic() - begin, time.time()
            left = self._left(job)
        except subprocess.TimeoutExpired:
            seconds, finished, left = LIMIT, time.time(), {}
        finally:
            for each_process in job.processes():
                os.kill(each_process, signal.SIGKILL)
            process.wait()
        printed = "\n".join((place / name).read_text() for name in ("out", "err"))
        said = f"{' '.join(map(str, command))}\n{printed}"
        assert code is not None, f"still running after {LIMIT:g} s: {said}"
        assert not left, f"processes (and ranks) left behind: {left}: {said}"
        return Ended(
            code, (place / "out").read_text(), (place / "err").read_text(), seconds, finished, out
        )

    @staticmethod
    def _left(job: Job) -> dict[int, int | None]:
        """Processes that are still there when their launcher has been gone for a while."""
        deadline = time.monotonic() + GRACE
        while (left := job.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def trains(self, *arguments: object, **more: Any) -> Ended:
        """A training that must end well."""
        ended = self(*arguments, **more)
        assert ended.code == 0, ended.err
        assert ended.end["exit"] == 0
        return ended

    def ends_with(self, ended: Ended, code: int) -> None:
        """Assert an exit code, as far as this launcher tells."""
        assert ended.code == code if self.exact else ended.code != 0, (ended.code, ended.err)
