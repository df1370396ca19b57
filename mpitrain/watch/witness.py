"""A small process beside each rank that reports the rank's death when the rank itself cannot.

That is when the rank was killed, crashed in native code, ran out of memory or was stopped. The
witness shares a line of memory with its rank, in which the rank writes what it is doing, and a
pipe, which ends when the rank ends. The first rank of a host to die is the cause; the launcher then
kills the others. So witnesses bind a name, and only the one that binds it first reports. If there
are several hosts, it first asks the witnesses of the others (rollcall.py), and does not report if
one of their ranks ended earlier.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpitrain.watch import rollcall
from mpitrain.watch.rollcall import Answer, AnswerPort, Place

LINE_BYTES = 240
"""Length of the shared line."""
NAME_HELD_SECONDS = 1.0
"""Seconds for which the name stays bound, while the launcher kills the other ranks."""
LAUNCHER_EXIT_SECONDS = 3.0
"""Seconds after which the launcher is ended if it still waits for a host behind a cut link. Open
MPI's launcher waits for ever."""
LOOK_SECONDS = 0.2
"""Seconds between two looks whether the rank is stopped."""
DESCRIPTORS_MAX = 1 << 16
"""File descriptors have lower numbers when the witness starts."""
OTHERS_WORD_SECONDS = 1.0
"""Seconds that the witness of a dead rank gets to report it, before a rank reports a lost
message."""
LINGER = 0.5
"""Seconds to wait until the launcher has printed a rank's last message. Launchers forward stderr,
and lose what they have not yet printed when the job is aborted."""
SPOKEN, DONE, OPEN, MEET, SPARE = b"s", b"d", b"o", b"m", b"l"
"""What a rank tells its witness through the pipe; see the functions that send them."""
LAUNCHERS = ("prterun", "prted", "mpirun", "orterun", "orted")
"""Names of the processes of Open MPI's launcher."""
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
)
"""Signals that the witness ignores, because they are meant for the rank."""

_line: mmap.mmap | None = None
_pipe = -1
_name = "a rank"
_doing = ""
_others: list[Place] = []


def call() -> None:
    """Start this process's witness, once, before there are threads. Only Linux has witnesses."""
    global _line, _pipe
    if sys.platform != "linux" or _line is not None:
        return
    faulthandler.enable()
    rank, launcher = os.getpid(), os.getppid()
    line = mmap.mmap(-1, LINE_BYTES + 8)  # the last 8 bytes: the witness's port
    pipe, write_end = os.pipe()
    if os.fork() == 0:
        os.close(write_end)
        try:
            _stand_by(rank, launcher, line, pipe)
        finally:
            os._exit(0)
    os.close(pipe)
    _line, _pipe = line, write_end


def who(words: str) -> None:
    """Tell the witness the name of this rank."""
    global _name
    _name = words


def note(doing: str) -> None:
    """Tell the witness what this rank is doing now."""
    global _doing
    if _line is not None and doing != _doing:
        _doing = doing
        _line[:LINE_BYTES] = f"{_name}, {doing}".encode()[:LINE_BYTES].ljust(LINE_BYTES, b"\0")


def meet(gather: Callable[[Any], list[Any]]) -> None:
    """Tell the witnesses of several hosts of each other. Collective.

    If one of them cannot be reached, they stay without each other.
    """
    global _others
    places = [tuple(place) for place in gather([_name, rollcall.address(), _port()])]
    me = next(number for number, place in enumerate(places) if place[0] == _name)
    neighbour = places[(me + 1) % len(places)]
    reached = bool(neighbour[1] and neighbour[2]) and rollcall.ask([neighbour]) != [None]
    if all(gather(reached)):
        _others = places[:me] + places[me + 1 :]
        content = json.dumps(_others).encode()
        _tell(MEET + len(content).to_bytes(4, "big") + content)


def _port() -> int:
    """Let this rank's witness open its port, and return the port; 0 if there is none."""
    if _line is not None:
        _tell(OPEN)
        limit = time.monotonic() + 2
        while time.monotonic() < limit:
            if port := int.from_bytes(_line[LINE_BYTES:], "big"):
                return port
            time.sleep(0.001)
    return 0


def whom(rank: int) -> str:
    """The name of this rank, with its host if there are several."""
    return _name if " on " in _name else f"rank {rank}"


def absent() -> str:
    """Which ranks of several hosts do not answer or are stopped; empty if none, or on one host."""
    return rollcall.absent(_others, rollcall.ask(_others)) if _others else ""


def other_speaks() -> bool:
    """Whether the witness of another rank of this host has reported why the job ends, or does so
    within OTHERS_WORD_SECONDS."""
    limit = time.monotonic() + OTHERS_WORD_SECONDS
    while not (taken := _is_name_bound(os.getppid())) and time.monotonic() < limit:
        time.sleep(0.02)
    return taken


def spoken() -> None:
    """This rank has itself reported why the job ends: no witness needs to report anything."""
    _tell(SPOKEN)


def done() -> None:
    """This rank ends normally, or because it was told to."""
    _tell(DONE)


def spare_the_launcher() -> None:
    """The job goes on if this rank dies: its witness must not end the launcher."""
    _tell(SPARE)


def _tell(word: bytes) -> None:
    if _pipe >= 0:
        with contextlib.suppress(OSError):
            os.write(_pipe, word)


def _stand_by(rank: int, launcher: int, line: mmap.mmap, pipe: int) -> None:
    """Run the witness until its rank has ended, and report the rank's death if it is the first.

    rank, launcher: numbers of their processes.
    """
    os.setsid()  # launchers send signals to the whole process group
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A launcher notices the death when all files of the rank are closed, in this process too.
    low, high = sorted((2, pipe))
    for start, stop in ((0, low), (low + 1, high), (high + 1, DESCRIPTORS_MAX)):
        os.closerange(start, stop)
    killed_before = _killed_for_memory()
    bound_name: socket.socket | None = None
    over: float | None = None  # when the rank ended, or announced its end
    announced = spared = False
    port: AnswerPort | None = None
    others: list[Place] = []

    def answer() -> Answer:
        seconds = None if over is None else time.monotonic() - over
        return {
            "line": _words(line),
            "over": seconds,
            "stopped": over is None and _is_stopped(rank),
        }

    while True:
        doors: list[Any] = [pipe, port.socket] if port else [pipe]
        ready = select.select(doors, [], [], LOOK_SECONDS)[0]
        word = os.read(pipe, 1) if pipe in ready else None
        if word == OPEN:
            # Ranks that go on without a dead one meet again, and keep their ports.
            port = port or AnswerPort(answer)
            line[LINE_BYTES:] = port.port.to_bytes(8, "big")
        elif word == MEET:
            others = [
                tuple(place)
                for place in json.loads(_read(pipe, int.from_bytes(_read(pipe, 4), "big")))
            ]
        elif word == SPARE:
            spared = True
        elif word == DONE and not others:
            return
        elif word == DONE:  # the witness stays, for others to ask
            announced = True
        elif word == SPOKEN:
            over = over or time.monotonic()
            bound_name = bound_name or _bind_name(launcher)
        elif word == b"":
            break
        elif port and port.socket in ready:
            port.answer()
        elif not ready and _is_stopped(rank) and _is_name_bound(launcher):
            # Another rank of this host ends the job: it waited too long for this one.
            _report(line, "stopped (SIGSTOP), the others waited for it")
            return
    if over is None:
        over = time.monotonic()
        bound_name = None if announced else _bind_name(launcher)
        if bound_name and (how := _how_it_died(over, others, port, killed_before)):
            _report(line, how)
    if bound_name or others:
        os.close(2)  # the launcher waits until its ranks' stderr is closed
        limit = time.monotonic() + NAME_HELD_SECONDS
        while (left := limit - time.monotonic()) > 0:
            if port and select.select([port.socket], [], [], left)[0]:
                port.answer()
            elif not port:
                time.sleep(left)
    if bound_name and others and not spared:
        _end_launcher(launcher)


def _how_it_died(
    ended: float, others: Sequence[Place], port: AnswerPort | None, killed_before: str
) -> str:
    """How a rank died that ended at this time, in words; empty if a rank elsewhere ended earlier.

    killed_before: what `_killed_for_memory` returned when the rank was alive.
    """
    answers = rollcall.ask(others, port)
    seconds = time.monotonic() - ended
    if any(each and each["over"] is not None and each["over"] > seconds for each in answers):
        return ""  # that rank's witness reports
    if gone := rollcall.absent(others, answers):
        return f"ended by its launcher; {gone}"
    if killed_before != _killed_for_memory():
        return "died without a word: killed, and the system has just killed for want of memory"
    return "died without a word: killed, or at fault in native code"


def _killed_for_memory() -> str:
    """Linux's line about how many processes its out-of-memory killer has ended."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("oom_kill ")), "")


def _read(file: int, count: int) -> bytes:
    content = b""
    while len(content) < count and (more := os.read(file, count - len(content))):
        content += more
    return content


def _end_launcher(launcher: int) -> None:
    """End a launcher that does not end with its ranks: by SIGTERM, then by SIGKILL."""
    limit = time.monotonic() + LAUNCHER_EXIT_SECONDS
    while time.monotonic() < limit:
        if not _is_launcher(launcher):
            return
        time.sleep(LOOK_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            if _is_launcher(launcher):
                os.kill(launcher, number)
        time.sleep(NAME_HELD_SECONDS)


def _is_launcher(process: int) -> bool:
    """Whether this process still exists, and is a launcher of this job alone."""
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        words = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return name in LAUNCHERS and (name != "prted" or b"prterun" in words)


def _report(line: mmap.mmap, how: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"mpitrain: {_words(line)}: {how}\n".encode())


def _words(line: mmap.mmap) -> str:
    return bytes(line[:LINE_BYTES]).rstrip(b"\0").decode(errors="replace") or "a rank, at its start"


def _bind_name(launcher: int) -> socket.socket | None:
    """Bind the name of this host's part of the job; None if another witness has bound it."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0mpitrain-{launcher}")
    except OSError:
        return None
    return name


def _is_name_bound(launcher: int) -> bool:
    try:
        return any(
            words.endswith(f"@mpitrain-{launcher}")
            for words in Path("/proc/net/unix").read_text().splitlines()
        )
    except OSError:
        return False


def _is_stopped(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def last_words(line: str) -> None:
    """Print on stderr why this rank is about to abort the job, and wait until it has arrived."""
    spoken()
    # One write: print() would write the line's end separately, perhaps after other ranks' lines.
    sys.stderr.write(f"mpitrain: {line}\n")
    sys.stderr.flush()
    time.sleep(LINGER)
