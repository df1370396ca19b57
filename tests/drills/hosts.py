"""Hosts of their own for drills and benchmarks: network namespaces behind links of a given rate,
each with a host name, that a drill can cut off. As root on Linux."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher import Job, Launch

PROGRAMS = ("ip", "tc", "unshare")
RATE = "100mbit"
"""An exchange of LeNet's 8-bit gradient is then most of a step, and what strikes between two steps
strikes it."""
LARGEST_PACKET = 1 << 15
"""Bytes of a packet that a host hands to its interface. The shaper (tbf with a burst of 64 KiB)
would cut longer ones into frames of 1,500 bytes, all by the machine's own cores, which is a network
card's work elsewhere: four hosts on two cores then moved 38 MB/s each over links of 125."""
ON = """#!/bin/sh
host=$1; shift
exec ip netns exec "$host" unshare -u -i sh -c 'hostname "$0"; exec "$@"' "$host" "$@"
"""
SSH = """#!/bin/sh
while :; do case "$1" in -x|-q|-n|-t|-T) shift;; -p|-l|-i|-o) shift 2;; *) break;; esac; done
host=$1; shift
exec {on} "$host" sh -c "$*"
"""
"""What launchers take for ssh."""


class Hosts:
    """`with Hosts(3) as hosts:` makes them, and always takes them down."""

    def __init__(self, count: int, rate: str = RATE) -> None:
        self._rate = rate
        mark = f"d{os.getpid()}"
        self.names = [f"{mark}h{number}" for number in range(count)]
        self._switch = f"{mark}sw"
        self._folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self._on, self._ssh = self._folder / "on", self._folder / "ssh"

    def __enter__(self) -> Hosts:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for name in (*self.names, self._switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)
        shutil.rmtree(self._folder)

    def cut(self, number: int) -> None:
        """Take a host's link down, at the switch: the host itself sees nothing of it but
        silence."""
        _ip("-n", self._switch, "link", "set", f"p{number}", "down")

    def processes(self, number: int) -> list[int]:
        """All that run on a host."""
        return [int(word) for word in _run("ip", "netns", "pids", self.names[number]).split()]

    def program(self, launch: Launch, ranks: Sequence[int], flags: Sequence[str] = ()) -> list[str]:
        """The words that start mpitrain with ranks[i] ranks on host i, from host 0. flags: the
        launcher's."""
        start = self.launcher(launch.mpirun, launch.exact, ranks, flags)
        return [*start, "-n", str(sum(ranks)), *launch.mpitrain]

    def launcher(
        self, mpirun: str, is_mpich: bool, ranks: Sequence[int], flags: Sequence[str] = ()
    ) -> list[str]:
        """The words before the number of ranks, with ranks[i] of them on host i."""
        some = [str(self._on), self.names[0], mpirun, *flags]
        pairs = [f"{name}:{count}" for name, count in zip(self.names, ranks, strict=True) if count]
        where, ssh = ",".join(pairs), str(self._ssh)
        if is_mpich:
            return [
                *some, "-launcher", "ssh", "-launcher-exec", ssh, "-hosts", where, "-iface", "eth0",
            ]  # fmt: skip
        return [*some, "--host", where, "--map-by", "slot", "--prtemca", "plm_ssh_agent", ssh]

    def _make(self) -> None:
        for path, text in ((self._on, ON), (self._ssh, SSH.format(on=self._on))):
            path.write_text(text)
            path.chmod(0o755)
        lines = [
            "127.0.0.1 localhost",
            *(f"10.77.0.{number + 1} {name}" for number, name in enumerate(self.names)),
        ]
        switch = ("-n", self._switch)
        _ip("netns", "add", self._switch)
        _ip(*switch, "link", "add", "br0", "type", "bridge")
        _ip(*switch, "link", "set", "br0", "up")
        for number, name in enumerate(self.names):
            place = Path("/etc/netns") / name
            place.mkdir(parents=True)
            (place / "hosts").write_text("\n".join(lines) + "\n")
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip(
                *switch,
                "link",
                "add",
                f"p{number}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                name,
            )
            _ip(*switch, "link", "set", f"p{number}", "master", "br0", "up")
            _ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            for where, device in ((name, "eth0"), (self._switch, f"p{number}")):
                largest = ["gso_max_size", str(LARGEST_PACKET)]
                _ip("-n", where, "link", "set", device, *largest)
                shape = ["tbf", "rate", self._rate, "burst", "64kb", "latency", "50ms"]
                _run(
                    "ip",
                    "netns",
                    "exec",
                    where,
                    "tc",
                    "qdisc",
                    "add",
                    "dev",
                    device,
                    "root",
                    *shape,
                )


def signal_ranks(job: Job, ranks: Sequence[int], number: signal.Signals) -> None:
    """A signal to ranks alone, as the system's out-of-memory killer sends it: not to the witness
    beside each, which is its child."""
    found = {process for process, rank in job.processes().items() if rank in ranks}
    parents = {process: _parent(process) for process in found}
    for process in found:
        if parents[process] not in found:
            os.kill(process, number)


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def missing() -> str:
    """Why there can be no hosts here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts for a drill need root on Linux"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: apt-get install iproute2)"
    try:
        with Hosts(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {' '.join(error.stderr.split())}"


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
