"""A small process beside each rank that speaks when the rank cannot: killed, at fault in native
code, out of memory, or stopped.

It shares a line of memory with the rank, which keeps there what it is doing, and a pipe, which ends
when the rank does. Of the ranks of a host the first to die is the cause, the launcher kills the
others: whoever binds a name first speaks, and the rest are silent. Where there are several hosts it
asks the others' witnesses first (rollcall.py), and is silent where a rank of theirs was over
before.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpitrain.watch import rollcall
from mpitrain.watch.rollcall import Answer, Ears, Place

LONGEST = 240
"""Bytes of the line."""
HOLD = 1.0
"""Seconds for which the name stays taken, while the launcher kills the other ranks."""
FAREWELL = 3.0
"""Seconds after which a launcher that still waits, for a host behind a cut link, is ended. Open
MPI's waits for ever."""
LOOK = 0.2
"""Seconds between two looks whether the rank has been stopped."""
MOST = 1 << 16
"""No file descriptor has a higher number so early."""
MOMENT = 1.0
"""Seconds that the witness of a dead rank gets to say so, before a rank speaks that has only lost a
message."""
LINGER = 0.5
"""Seconds for the last words to arrive: launchers hand on a rank's stderr, and drop what is on its
way when the job is aborted."""
SPOKEN, DONE, OPEN, MEET, SPARE = b"s", b"d", b"o", b"m", b"l"
LAUNCHERS = ("prterun", "prted", "mpirun", "orterun", "orted")
"""Open MPI's, by the names of their processes."""
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
)
"""They are meant for the rank."""

_line: mmap.mmap | None = None
_pipe = -1
_who = "a rank"
_doing = ""
_others: list[Place] = []


def call() -> None:
    """Start the witness of this process: before there are threads, and once. Nothing happens where
    there is no Linux."""
    global _line, _pipe
    if sys.platform != "linux" or _line is not None:
        return
    faulthandler.enable()
    rank, launcher = os.getpid(), os.getppid()
    line = mmap.mmap(-1, LONGEST + 8)  # the last 8 bytes: the witness's port
    ears, mouth = os.pipe()
    if os.fork() == 0:
        os.close(mouth)
        try:
            _stand_by(rank, launcher, line, ears)
        finally:
            os._exit(0)
    os.close(ears)
    _line, _pipe = line, mouth


def who(words: str) -> None:
    """Which rank this is."""
    global _who
    _who = words


def note(doing: str) -> None:
    """What this rank is doing now."""
    global _doing
    if _line is not None and doing != _doing:
        _doing = doing
        _line[:LONGEST] = f"{_who}, {doing}".encode()[:LONGEST].ljust(LONGEST, b"\0")


def meet(gather: Callable[[Any], list[Any]]) -> None:
    """Ranks of several hosts tell each other where their witnesses answer. Collective; nothing
    comes of it where one cannot be reached."""
    global _others
    places = [tuple(place) for place in gather([_who, rollcall.address(), _port()])]
    me = next(number for number, place in enumerate(places) if place[0] == _who)
    neighbour = places[(me + 1) % len(places)]
    reached = bool(neighbour[1] and neighbour[2]) and rollcall.ask([neighbour]) != [None]
    if all(gather(reached)):
        _others = places[:me] + places[me + 1 :]
        told = json.dumps(_others).encode()
        _tell(MEET + len(told).to_bytes(4, "big") + told)


def _port() -> int:
    """Where this rank's witness answers, which it does from now on; 0 if it does not."""
    if _line is not None:
        _tell(OPEN)
        limit = time.monotonic() + 2
        while time.monotonic() < limit:
            if port := int.from_bytes(_line[LONGEST:], "big"):
                return port
            time.sleep(0.001)
    return 0


def whom(rank: int) -> str:
    """Which rank this is, in the words of a line; with its host where there are several."""
    return _who if " on " in _who else f"rank {rank}"


def absent() -> str:
    """Who of the ranks of several hosts does not answer or is stopped, in words; nothing where all
    are well, or on one host."""
    return rollcall.absent(_others, rollcall.ask(_others)) if _others else ""


def other_speaks() -> bool:
    """Whether the witness of another rank of this host has said why the job ends, or does so within
    a moment."""
    limit = time.monotonic() + MOMENT
    while not (taken := _is_taken(os.getppid())) and time.monotonic() < limit:
        time.sleep(0.02)
    return taken


def spoken() -> None:
    """This rank has said itself why the job ends: the others, which will be killed, have nothing to
    add."""
    _tell(SPOKEN)


def done() -> None:
    """This rank ends in good order, or has been told to."""
    _tell(DONE)


def spare_the_launcher() -> None:
    """The job goes on when this rank is dead, so its launcher must."""
    _tell(SPARE)


def _tell(word: bytes) -> None:
    if _pipe >= 0:
        with contextlib.suppress(OSError):
            os.write(_pipe, word)


def _stand_by(rank: int, launcher: int, line: mmap.mmap, ears: int) -> None:
    os.setsid()  # launchers signal whole groups
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A launcher sees that its rank is dead when all that the rank had open is closed, here too.
    low, high = sorted((2, ears))
    for start, stop in ((0, low), (low + 1, high), (high + 1, MOST)):
        os.closerange(start, stop)
    killed = _killed_for_memory()
    held: socket.socket | None = None
    over: float | None = None  # since when the rank is, or has said that it will be
    told = spared = False
    ears_of_all: Ears | None = None
    others: list[Place] = []

    def answer() -> Answer:
        seconds = None if over is None else time.monotonic() - over
        return {
            "line": _words(line),
            "over": seconds,
            "stopped": over is None and _is_stopped(rank),
        }

    while True:
        doors: list[Any] = [ears, ears_of_all.socket] if ears_of_all else [ears]
        ready = select.select(doors, [], [], LOOK)[0]
        heard = os.read(ears, 1) if ears in ready else None
        if heard == OPEN:
            ears_of_all = ears_of_all or Ears(
                answer
            )  # ranks that go on without a dead one meet again
            line[LONGEST:] = ears_of_all.port.to_bytes(8, "big")
        elif heard == MEET:
            others = [
                tuple(place)
                for place in json.loads(_read(ears, int.from_bytes(_read(ears, 4), "big")))
            ]
        elif heard == SPARE:
            spared = True
        elif heard == DONE and not others:
            return
        elif heard == DONE:  # it is still there, for others to ask
            told = True
        elif heard == SPOKEN:
            over = over or time.monotonic()
            held = held or _first(launcher)
        elif heard == b"":
            break
        elif ears_of_all and ears_of_all.socket in ready:
            ears_of_all.answer()
        elif not ready and _is_stopped(rank) and _is_taken(launcher):
            # The others have waited for this rank as long as they may.
            _say(line, "stopped (SIGSTOP), the others waited for it")
            return
    if over is None:
        over = time.monotonic()
        if not told and (held := _first(launcher)):
            answers = rollcall.ask(others, ears_of_all)
            mine = time.monotonic() - over
            if any(
                answer and answer["over"] is not None and answer["over"] > mine
                for answer in answers
            ):
                pass  # that one was the first
            elif gone := rollcall.absent(others, answers):
                _say(line, f"ended by its launcher; {gone}")
            else:
                memory = killed != _killed_for_memory()
                how = (
                    "and the system has just killed for want of memory"
                    if memory
                    else "or at fault in native code"
                )
                _say(line, f"died without a word: killed, {how}")
    if held or others:
        os.close(2)  # a launcher waits for the end of what its ranks say
        limit = time.monotonic() + HOLD
        while (left := limit - time.monotonic()) > 0:
            if ears_of_all and select.select([ears_of_all.socket], [], [], left)[0]:
                ears_of_all.answer()
            elif not ears_of_all:
                time.sleep(left)
    if held and others and not spared:
        _see_off(launcher)


def _killed_for_memory() -> str:
    """How many processes the system's out-of-memory killer has ended, here or in a group with a
    limit of its own."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("oom_kill ")), "")


def _read(file: int, count: int) -> bytes:
    some = b""
    while len(some) < count and (more := os.read(file, count - len(some))):
        some += more
    return some


def _see_off(launcher: int) -> None:
    """End a launcher that has not ended with its ranks: asked first, then by force."""
    limit = time.monotonic() + FAREWELL
    while time.monotonic() < limit:
        if not _is_launcher(launcher):
            return
        time.sleep(LOOK)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            if _is_launcher(launcher):
                os.kill(launcher, number)
        time.sleep(HOLD)


def _is_launcher(process: int) -> bool:
    """Whether it is there, and one that was started for this job alone."""
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        words = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return name in LAUNCHERS and (name != "prted" or b"prterun" in words)


def _say(line: mmap.mmap, how: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"mpitrain: {_words(line)}: {how}\n".encode())


def _words(line: mmap.mmap) -> str:
    return bytes(line[:LONGEST]).rstrip(b"\0").decode(errors="replace") or "a rank, at its start"


def _first(launcher: int) -> socket.socket | None:
    """Take the name of this host's part of the job, which is the launcher's; None if another
    has."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0mpitrain-{launcher}")
    except OSError:
        return None
    return name


def _is_taken(launcher: int) -> bool:
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
    """Say on stderr why this rank is about to abort the job, and return when the launcher has had
    time to hand it on."""
    spoken()
    sys.stderr.write(
        f"mpitrain: {line}\n"
    )  # print() would write the line's end by itself, behind other ranks' lines
    sys.stderr.flush()
    time.sleep(LINGER)
