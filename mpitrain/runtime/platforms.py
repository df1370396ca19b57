"""Let the OpenCL loader find every runtime there is, pip's own included, and keep to this process's
share of the cores.

Both must happen before the first OpenCL call: runtimes read their settings and the affinity when
they load.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")
ROOT = Path("/")
OF_CGROUP_2 = ("memory.max", "memory.current", "inactive_file")
OF_CGROUP_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files of a cgroup with its limit and what its processes use, and the line of memory.stat with the
files' cache in that."""


def cache_folder() -> Path:
    """Where what can be made again is kept between runs: XDG_CACHE_HOME/mpitrain, or the home's
    .cache; where that cannot be written, a folder for temporary files."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return _writable(Path(home) / "mpitrain")


@functools.lru_cache
def _writable(folder: Path) -> Path:
    """The folder, or one of this user's for temporary files that stands in for it; says so when
    that is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
        return folder
    except OSError as error:
        why = error.strerror
    other = Path(tempfile.gettempdir()) / f"mpitrain-{os.getuid()}"
    try:
        other.mkdir(mode=0o700)
    except FileExistsError:  # of an earlier run, or of someone who would have us run his kernels
        if other.is_symlink() or other.stat().st_uid != os.getuid():
            other = Path(tempfile.mkdtemp(prefix="mpitrain-"))
    else:
        print(
            f"mpitrain: {folder} cannot be written ({why}): compiled kernels are kept in {other} "
            "(XDG_CACHE_HOME names another place)",
            file=sys.stderr,
            flush=True,
        )
    # PoCL compiles by way of files of its own
    os.environ.setdefault("POCL_CACHE_DIR", str(other / "pocl"))
    return other


def share_of_cores(affinities: Sequence[Iterable[int]], local_rank: int) -> list[int]:
    """The cores for one rank of a host, from the cores that each of its ranks was given, in local
    rank order.

    If the launcher has already given ranks different cores, that stands. If all may use the same
    ones, each gets an equal run of them, or a single core in turn when there are more ranks than
    cores.
    """
    mine = sorted(affinities[local_rank])
    if any(sorted(other) != mine for other in affinities):
        return mine
    ranks = len(affinities)
    if ranks >= len(mine):
        return [mine[local_rank % len(mine)]]
    return mine[local_rank * len(mine) // ranks : (local_rank + 1) * len(mine) // ranks]


def prepare(cores: Sequence[int] | None) -> None:
    """Bind this process to `cores` (None: as it is) and point the OpenCL loader at every runtime
    there is.

    Takes effect if no OpenCL call has been made yet. Leaves OCL_ICD_VENDORS alone if the user has
    set it.
    """
    if sys.platform != "linux":
        return
    if cores is not None:
        os.sched_setaffinity(0, cores)
    # PoCL starts a thread for every core it sees, whatever the affinity; Intel's runtime obeys the
    # affinity alone.
    os.environ.setdefault("POCL_MAX_PTHREAD_COUNT", str(len(os.sched_getaffinity(0))))
    if "OCL_ICD_VENDORS" not in os.environ:
        os.environ["OCL_ICD_VENDORS"] = str(_vendor_folder(_libraries()))


def _libraries() -> list[str]:
    """Paths (or sonames) of OpenCL drivers: the system's, NVIDIA's even where nobody registered it,
    and Intel's wheel.

    PoCL's wheel lies where pyopencl's own loader looks for it, so it needs no entry.
    """
    found = (
        [path.read_text().strip() for path in sorted(SYSTEM_VENDORS.glob("*.icd"))]
        if SYSTEM_VENDORS.is_dir()
        else []
    )
    if not any("nvidia" in name for name in found) and _loads("libnvidia-opencl.so.1"):
        found.append("libnvidia-opencl.so.1")
    intel = _wheel_library("intel-opencl-rt", "libintelocl.so")
    if intel:
        found.append(intel)
    return found


def _wheel_library(distribution: str, start: str) -> str | None:
    """Full path of a shared library that a pip package installed, by the start of its name, if the
    package is there."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [
        Path(str(file.locate()))
        for file in files
        if file.name.startswith(start) and ".so" in file.name and file.suffix != ".py"
    ]
    paths = sorted((path for path in paths if path.exists()), key=lambda path: len(path.name))
    return str(paths[0].resolve()) if paths else None


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _vendor_folder(libraries: Sequence[str]) -> Path:
    """A folder with one .icd file a library. Its name is the hash of what it holds, so ranks that
    write it write the same."""
    key = hashlib.sha256("\n".join(libraries).encode()).hexdigest()[:16]
    folder = cache_folder() / "vendors" / key
    folder.mkdir(parents=True, exist_ok=True)
    for number, library in enumerate(libraries):
        write_atomically(folder / f"{number}.icd", (library + "\n").encode())
    return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees it whole or not at all, however many ranks write
    it."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.uname().nodename}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def available_memory(root: Path = ROOT) -> int:
    """Bytes of the host's memory that new allocations can have without swapping, and without the
    system's killing them for a cgroup's limit.

    root: where proc and sys are.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
        )
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min([free, *_left_by_cgroups(root)])


def _left_by_cgroups(root: Path) -> Iterator[int]:
    """Bytes that each cgroup with a limit still gives, from this process's own to the root: SLURM's
    and containers' are among them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        # A container sees its own cgroup as the top, while the path may be the host's: folders that
        # are not there are passed over.
        folder = top.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        for each in (folder, *folder.parents):
            left = _left_by(each, *(OF_CGROUP_1 if controllers else OF_CGROUP_2))
            if left is not None:
                yield left
            if each == top:
                break


def _left_by(folder: Path, limit: str, used: str, cache: str) -> int | None:
    """Bytes below a cgroup's limit; None where it has none. Cached files that nobody uses give way,
    so they do not count."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return None
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, int(most) - int((folder / used).read_text()) + int(stat.get(cache, 0)))
    except (OSError, ValueError):
        return None


def own_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
