"""What a machine can do to a run, for drills: disks of a few MiB that can be filled, fail or go
away, and memory of which there is little. As root on Linux."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MEMORY = Path("/sys/fs/cgroup/memory")
"""Where the groups of version 1 lie; version 2 has one tree for all."""
SIZE = 64
"""MiB of a disk, room for ten checkpoints of LeNet."""


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A tmpfs at place/disk, which is seen at place/seen as well: what is unmounted there can still
    be looked at here."""
    disk, seen = place / "disk", place / "seen"
    with contextlib.ExitStack() as undo:
        for path, words in (
            (disk, ["-t", "tmpfs", "-o", f"size={SIZE}m", "none"]),
            (seen, ["--bind", str(disk)]),
        ):
            path.mkdir()
            _run("mount", *words, str(path))
            undo.callback(subprocess.run, ["umount", "-l", path], capture_output=True, check=False)
        yield seen


def unmount(path: Path) -> None:
    """Take a disk away from under those who use it."""
    _run("umount", "-l", str(path))


def fill(folder: Path) -> Path:
    """Write a file until the disk takes no more."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return path


@contextlib.contextmanager
def failing(place: Path) -> Iterator[Path]:
    """An ext4 in a file, which turns read-only at its first error; `fail` makes one."""
    image, disk = place / "image", place / "failing"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE << 20)
    _run("mkfs.ext4", "-q", str(image))
    _run("mount", "-o", "loop,errors=remount-ro", str(image), str(disk))
    try:
        yield disk
    finally:
        _run("umount", "-l", str(disk))


def fail(disk: Path) -> None:
    """An error of the disk, as a bad block makes one."""
    device = Path(_run("findmnt", "--noheadings", "--output", "SOURCE", str(disk))).name
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")


@contextlib.contextmanager
def memory(mib: int) -> Iterator[Path]:
    """A group of processes that have so much memory together: whoever writes "0" to the path
    belongs to it, with all its children."""
    old = MEMORY.is_dir()
    group = (MEMORY if old else MEMORY.parent) / f"mpitrain-drill-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(mib << 20))
        yield group / "cgroup.procs"
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):  # its last processes may be ending
                group.rmdir()
                break
            time.sleep(0.1)


def missing_disk(*programs: str) -> str:
    """Why no disk can be made for a drill here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a disk for a drill needs root on Linux"
    absent = [program for program in ("mount", *programs) if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if programs and not Path("/dev/loop-control").exists():
        return "no loop devices here"
    return (
        ""
        if "CapEff:\t0000000000000000" not in Path("/proc/self/status").read_text()
        else "root may not mount here"
    )


def missing_memory() -> str:
    """Why no limit of memory can be set here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a limit of memory needs root on Linux"
    try:
        with memory(64):
            return ""
    except OSError as error:
        return f"no groups of processes with a limit of memory: {error}"


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
