"""Hosts of their own on one machine, behind shaped links, as root: made here for the time of a
measurement, or by a folder with netlab.sh (makes and shapes them), nsrun and nsrsh."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "drills"))
import hosts
from hosts import LARGEST_PACKET, Hosts

PREFIX = os.environ.get("NETLAB_PREFIX", "mt")
FIRST_ADDRESS = "10.77.0.1"
"""Of the first host, as netlab.sh gives it."""


@contextmanager
def made(count: int, rate: str) -> Iterator[Hosts]:
    """So many hosts behind links of a rate, such as "1gbit", taken down at the end. Raises
    NoHostsError."""
    why = hosts.missing()
    if why:
        raise NoHostsError(why)
    with Hosts(count, rate) as found:
        yield found


class NoHostsError(Exception):
    """This machine cannot have hosts of its own; says why."""


def shape(lab: Path, rate: str, count: int) -> None:
    """Give the links of the first `count` hosts a rate, such as "1gbit"."""
    subprocess.run([lab / "netlab.sh", "rate", rate], check=True)
    for number in range(count):
        for host, interface in ((f"{PREFIX}{number}", "eth0"), (f"{PREFIX}sw", f"p{number}")):
            subprocess.run(
                ["ip", "-n", host, "link", "set", interface, "gso_max_size", str(LARGEST_PACKET)],
                check=True,
            )


def mpirun(lab: Path, count: int, per_host: int = 1) -> list[str]:
    """The words that start MPICH's ranks on `count` hosts, so many on each after each other, but
    for how many in all."""
    hosts = ",".join(f"{PREFIX}{number}:{per_host}" for number in range(count))
    launcher = [
        "-launcher",
        "ssh",
        "-launcher-exec",
        str(lab / "nsrsh"),
        "-hosts",
        hosts,
        "-iface",
        "eth0",
    ]
    return [
        str(lab / "nsrun"),
        f"{PREFIX}0",
        str(Path(sys.executable).parent / "mpirun"),
        *launcher,
    ]
