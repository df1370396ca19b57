"""Hosts of their own on one machine, behind shaped links: a folder with netlab.sh (makes and shapes
them), nsrun and nsrsh; as root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PREFIX = os.environ.get("NETLAB_PREFIX", "mt")
FIRST_ADDRESS = "10.77.0.1"
"""Of the first host, as netlab.sh gives it."""
LARGEST = 1 << 15
"""Bytes of a packet that a lab host hands to its interface. The shaper (tbf with a burst of 64 KiB)
would cut longer ones into frames of 1,500 bytes, all by the machine's own cores, which is a network
card's work elsewhere: four hosts on two cores then moved 38 MB/s each over links of 125."""


def shape(lab: Path, rate: str, count: int) -> None:
    """Give the links of the first `count` hosts a rate, such as "1gbit"."""
    subprocess.run([lab / "netlab.sh", "rate", rate], check=True)
    for number in range(count):
        for host, interface in ((f"{PREFIX}{number}", "eth0"), (f"{PREFIX}sw", f"p{number}")):
            subprocess.run(
                ["ip", "-n", host, "link", "set", interface, "gso_max_size", str(LARGEST)],
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
