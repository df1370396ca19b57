"""Links that lose packets, delay them, or go down and come back: what a training makes of them. As
root on Linux, with nft for losses:

    python tests/drills/links.py
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hosts import Hosts
from launcher import Ended, Job, Launch

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
STEPS = ("lenet", "--exchange", "dynamic8", "--steps", 60, "--quiet", "--stall-seconds", 20)
LOSS = """
table inet lossy {{
    chain input {{
        type filter hook input priority 0
        iifname "eth0" numgen random mod 1000 < {permille} drop
    }}
}}
"""


def lose(hosts: Hosts, number: int, permille: int) -> None:
    """Let a host lose so many of a thousand packets that come in."""
    subprocess.run(
        ["ip", "netns", "exec", hosts.names[number], "nft", "-f", "-"],
        input=LOSS.format(permille=permille),
        text=True,
        check=True,
    )


def down_for(hosts: Hosts, number: int, seconds: float) -> None:
    """Take a host's link down, and up again."""
    hosts.cut(number)
    time.sleep(seconds)
    switch = hosts.names[0].removesuffix("h0") + "sw"
    subprocess.run(["ip", "-n", switch, "link", "set", f"p{number}", "up"], check=True)


class Delayed:
    """The link between two hosts as a tunnel that hands packets on after `seconds`, for no kernel
    need have netem."""

    def __init__(self, hosts: Hosts, seconds: float) -> None:
        self._seconds = seconds
        self._ends = [self._tunnel(hosts.names[number], number) for number in (0, 1)]
        for origin, to in (self._ends, self._ends[::-1]):
            waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()
            for target, *more in ((self._read, origin), (self._write, to)):
                threading.Thread(target=target, args=(*more, waiting), daemon=True).start()

    @staticmethod
    def _tunnel(host: str, number: int) -> int:
        """A device that takes the place of a host's eth0; the end of it that this process holds."""
        end, name = os.open("/dev/net/tun", os.O_RDWR), f"tun{os.getpid()}{number}"[:15]
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        within = ["ip", "-n", host]
        for words in (
            ["ip", "link", "set", name, "netns", host],
            [*within, "link", "del", "eth0"],
            [*within, "link", "set", name, "name", "eth0"],
            [*within, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0"],
            [*within, "link", "set", "eth0", "txqueuelen", "10000", "up"],
        ):
            subprocess.run(words, check=True)
        return end

    def _read(self, end: int, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):  # the host has been taken down
            while True:
                packet = os.read(end, 65536)
                waiting.put((time.monotonic() + self._seconds, packet))

    @staticmethod
    def _write(end: int, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            when, packet = waiting.get()
            if (left := when - time.monotonic()) > 0:
                time.sleep(left)
            with contextlib.suppress(OSError):
                os.write(end, packet)


def train(
    launch: Launch, hosts: Hosts, out: Path, meanwhile: Callable[[Job], None] | None = None
) -> Ended:
    return launch(*STEPS, program=hosts.program(launch, (1, 1)), out=out, meanwhile=meanwhile)


def main() -> None:
    scratch = Path(tempfile.mkdtemp(prefix="links-"))
    launch = Launch(lambda name: Path(tempfile.mkdtemp(prefix=name, dir=scratch)))

    def strike(hosts: Hosts, seconds: float) -> Callable[[Job], None]:
        def meanwhile(job: Job) -> None:
            job.wait_for_step(7)
            down_for(hosts, 1, seconds)

        return meanwhile

    cases: dict[str, Callable[[Hosts, Path], Ended]] = {
        "as it is": lambda hosts, out: train(launch, hosts, out),
        "1 % of packets lost": lambda hosts, out: (
            [lose(hosts, number, 10) for number in (0, 1)] and train(launch, hosts, out)
        ),
        "5 % of packets lost": lambda hosts, out: (
            [lose(hosts, number, 50) for number in (0, 1)] and train(launch, hosts, out)
        ),
        "20 ms each way": lambda hosts, out: Delayed(hosts, 0.02) and train(launch, hosts, out),
        "down for 5 s": lambda hosts, out: train(launch, hosts, out, strike(hosts, 5.0)),
    }
    chosen = sys.argv[1:] or list(cases)
    for name in chosen:
        for number in range(3):
            with Hosts(2) as hosts:
                ended = cases[name](hosts, scratch / f"{name}-{number}")
            weights = ended.weights[:12] if ended.events("end") else "no end"
            steps = len(ended.events("step"))
            said = " | ".join(ended.sentences)
            print(
                f"{name}: {ended.code}, {steps} steps, {ended.seconds:.1f} s, {weights} {said}",
                flush=True,
            )
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
