"""Cores are shared fairly, devices are found, and what is not there is said."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyopencl as cl
import pytest

from mpitrain.engine.registry import open_device
from mpitrain.job.errors import UserError
from mpitrain.runtime import device as devices
from mpitrain.runtime import platforms, pocl
from mpitrain.runtime.device import Entry, choose, list_devices
from mpitrain.runtime.platforms import share_of_cores


@pytest.mark.parametrize(("cores", "ranks"), [(8, 2), (8, 3), (7, 4), (2, 2), (64, 8)])
def test_ranks_divide_the_cores_of_their_host(cores: int, ranks: int) -> None:
    shares = [share_of_cores([range(cores)] * ranks, rank) for rank in range(ranks)]
    assert sorted(core for share in shares for core in share) == list(range(cores))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_ranks_than_cores_take_one_in_turn() -> None:
    shares = [share_of_cores([[3, 5]] * 5, rank) for rank in range(5)]
    assert all(len(share) == 1 for share in shares)
    assert Counter(share[0] for share in shares) == {3: 3, 5: 2}


def test_what_the_launcher_has_divided_stays() -> None:
    assert share_of_cores([[0, 1], [2, 3]], 1) == [2, 3]


def test_both_runtimes_for_cpus_are_here() -> None:
    names = {entry.platform.name for entry in list_devices()}
    assert any("Intel" in name for name in names) and any("Portable" in name for name in names)


def test_intels_runtime_is_chosen_before_pocl() -> None:
    first = next(entry for entry in list_devices() if entry.kind == "cpu")
    assert "Intel" in first.platform.name
    assert "Intel" in open_device("cpu").platform and "Portable" in open_device("pocl:0").platform


@pytest.mark.parametrize("choice", ["nvidia:9", "nothing"])
def test_a_device_that_is_not_there_is_said_with_those_that_are(choice: str) -> None:
    with pytest.raises(
        UserError, match=rf"--device {choice}: no such OpenCL device; found: .*Intel.*Portable"
    ):
        open_device(choice)


def test_an_index_that_is_none_is_said() -> None:
    with pytest.raises(
        UserError, match="--device pocl:7: there are only 1 such devices, counted from 0"
    ):
        open_device("pocl:7")
    with pytest.raises(UserError, match="--device pocl:x: after the colon comes a number"):
        open_device("pocl:x")


def test_pocls_device_is_named_once() -> None:
    device = open_device("pocl")
    names = len(pocl._names)
    pocl.name_cpu(device.cl)
    assert len(pocl._names) == names  # opening it has seen to it


def test_a_generic_cpu_gets_a_name_that_the_compiler_knows_once() -> None:
    """On a device record made by hand: the word after the target triple is the CPU's name, no other
    is touched."""
    texts = [
        ctypes.create_string_buffer(text, 32)
        for text in (b"generic", b"x86_64-pc-linux-gnu", b"generic")
    ]
    record = (ctypes.c_uint64 * pocl.FIELDS)(3, *(ctypes.addressof(text) for text in texts))
    before = list(record)
    device: Any = SimpleNamespace(int_ptr=ctypes.addressof(record))
    name = pocl.name_cpu(device)
    assert name in ("skylake-avx512", "znver3", "x86-64-v2")
    assert ctypes.string_at(record[3]) == name.encode()
    assert [*record[:3], *record[4:]] == [*before[:3], *before[4:]]
    after = list(record)
    assert pocl.name_cpu(device) == name
    assert list(record) == after


def test_a_cpu_is_compiled_for_with_instructions_that_it_has() -> None:
    avx2 = {"sse4_2", "avx2", "fma"}
    for name in ("generic", "znver3"):  # Zen 5, and Zen 4 which LLVM 14 takes for a Zen 3
        assert pocl.suitable_name(name, avx2 | pocl.AVX512) == "skylake-avx512"
        assert (
            pocl.suitable_name(name, avx2 | {"avx512f"}) == "znver3"
        )  # what a Knights Landing has
    assert pocl.suitable_name("generic", {"sse4_2"}) == "x86-64-v2"
    assert pocl.suitable_name("icelake-server", avx2 | pocl.AVX512) == "icelake-server"


def entries(*names: str) -> list[Entry]:
    """Made-up devices: `gpu 0` is a GPU of NVIDIA's, anything else a CPU of that platform."""
    found = []
    for name in names:
        gpu = name.startswith("gpu")
        platform: Any = SimpleNamespace(name="NVIDIA CUDA" if gpu else name, vendor="")
        found.append(
            Entry(
                platform,
                SimpleNamespace(name=name, type=cl.device_type.GPU if gpu else cl.device_type.CPU),  # type: ignore[arg-type]
            )
        )
    return sorted(found, key=lambda entry: entry.rank)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host of made-up devices."""

    def make(*names: str) -> None:
        monkeypatch.setattr(devices, "list_devices", lambda cores: entries(*names))

    return make


def taken(choice: str, rank: int = 0) -> str:
    name: str = choose(choice, rank).cl.name
    return name


def test_ranks_of_a_host_take_the_best_devices_in_turn(host: Any) -> None:
    host("Portable", "gpu 0", "Intel", "gpu 1")
    assert [taken("auto", rank) for rank in range(5)] == [
        "gpu 0",
        "gpu 1",
        "gpu 0",
        "gpu 1",
        "gpu 0",
    ]
    assert [taken("cpu", rank) for rank in range(2)] == ["Intel", "Intel"]
    assert [taken("gpu:1", rank) for rank in range(2)] == ["gpu 1", "gpu 1"]
    assert taken("nvidia:0") == "gpu 0" and taken("cpu:1") == "Portable"


def test_a_host_without_devices_is_told_what_to_install(host: Any) -> None:
    host()
    with pytest.raises(UserError, match=r"found: none at all; `pip install mpitrain\[runtimes\]`"):
        choose()
    host("Intel")
    with pytest.raises(
        UserError, match=r"--device gpu: no such OpenCL device; found: Intel \(cpu: Intel\)"
    ):
        taken("gpu")


def test_the_loader_is_pointed_at_intels_library_unless_the_user_points_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OCL_ICD_VENDORS", "mine")
    platforms.prepare(None)
    assert os.environ["OCL_ICD_VENDORS"] == "mine"
    monkeypatch.delenv("OCL_ICD_VENDORS")
    platforms.prepare(None)
    folder = Path(os.environ["OCL_ICD_VENDORS"])
    assert folder.is_relative_to(tmp_path)
    named = [Path(file.read_text().strip()) for file in folder.glob("*.icd")]
    assert any(path.name.startswith("libintelocl.so") and path.is_file() for path in named)


def test_a_process_is_bound_to_its_cores_and_pocl_counts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound: list[Any] = [{0, 1, 2, 3}]
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: bound.append(set(cores)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: bound[-1])
    monkeypatch.setenv("OCL_ICD_VENDORS", "mine")
    monkeypatch.setenv("POCL_MAX_PTHREAD_COUNT", "")
    monkeypatch.delenv("POCL_MAX_PTHREAD_COUNT")
    platforms.prepare([2, 3])
    assert bound[1:] == [{2, 3}] and os.environ["POCL_MAX_PTHREAD_COUNT"] == "2"
    platforms.prepare(None)
    assert len(bound) == 2


def test_a_small_file_is_replaced_and_never_written_over(tmp_path: Path) -> None:
    """Who holds the old file open goes on reading the old one."""
    path, old = tmp_path / "deep" / "file", tmp_path / "old"
    platforms.write_atomically(path, b"before")
    os.link(path, old)
    platforms.write_atomically(path, b"after")
    assert (path.read_bytes(), old.read_bytes()) == (b"after", b"before")
    assert list(path.parent.iterdir()) == [path]


def tree(root: Path, own: str, **cgroups: dict[str, str]) -> Path:
    """A machine with 1,000 KiB free, this process in cgroup(s) `own`, and these folders of
    /sys/fs/cgroup ("__" for "/") with their files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 9999 kB\nMemFree: 1 kB\nMemAvailable: 1000 kB\n")
    (root / "proc/self/cgroup").write_text(own)
    for name, files in cgroups.items():
        folder = root / "sys/fs/cgroup" / name.strip("_").replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    return root


def two(most: int | str, used: int, cached: int = 0) -> dict[str, str]:
    """Files of a cgroup of version 2."""
    stat = f"anon 5\ninactive_file {cached}\nactive_file 7\n"
    return {"memory.max": f"{most}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def one(most: int, used: int, cached: int = 0) -> dict[str, str]:
    """Files of a cgroup of version 1, whose numbers without total_ are of its own processes
    alone."""
    stat = f"inactive_file 1\ntotal_inactive_file {cached}\n"
    return {
        "memory.limit_in_bytes": f"{most}\n",
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": stat,
    }


HOST = 1000 * 1024
UNLIMITED = 0x7FFFFFFFFFFFF000


@pytest.mark.parametrize(
    ("own", "cgroups", "left"),
    [
        ("0::/\n", {}, HOST),
        ("0::/job/step\n", {"job": two("max", 300), "job__step": two("max", 300)}, HOST),
        ("0::/job/step\n", {"job": two(5000, 3000), "job__step": two("max", 300)}, 2000),
        ("0::/job/step\n", {"job": two(5000, 3000, 1500), "job__step": two(4000, 300)}, 3500),
        (
            "0::/job/step\n",
            {"job": two(5000, 3000), "job__step": two(2200, 300), "other": two(9, 9)},
            1900,
        ),
        ("0::/job\n", {"job": two(5000, 6000)}, 0),
        ("0::/job\n", {"job": two(HOST * 2, 0)}, HOST),
        ("0::/of/the/host\n", {"_": two(4000, 1000)}, 3000),
        ("0::/../sister\n", {"sister": two(4000, 500)}, 3500),
        (
            "9:cpu:/a\n4:memory:/slurm/job\n0::/\n",
            {"memory__slurm__job": one(7000, 3000, 500)},
            4500,
        ),
        (
            "4:hugetlb,memory:/job\n",
            {"memory": one(6000, 500), "memory__job": one(UNLIMITED, 100)},
            5500,
        ),
        ("4:cpu:/job\n", {"memory__job": one(6, 5)}, HOST),
        ("0::/job\n", {"job": {"memory.max": "5000\n"}}, HOST),
    ],
)
def test_what_a_cgroup_still_allows_is_all_there_is(
    tmp_path: Path, own: str, cgroups: dict[str, dict[str, str]], left: int
) -> None:
    """Of the machine's and of every limit on the path from the own cgroup to the root the least
    counts."""
    assert platforms.available_memory(tree(tmp_path, own, **cgroups)) == left


def test_a_machine_without_cgroups_or_proc_has_memory_too(tmp_path: Path) -> None:
    assert platforms.available_memory(tmp_path) > 0
    assert platforms.available_memory() > 0


def test_a_cache_that_cannot_be_written_gives_way_to_a_temporary_folder_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in the folder's place refuses root, too. What another user has put there is not
    taken."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("POCL_CACHE_DIR", "set before")
    monkeypatch.setattr(platforms.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(platforms.tempfile, "tempdir", str(tmp_path))
    found = platforms.cache_folder()
    assert found == tmp_path / f"mpitrain-{os.getuid()}"
    assert found.stat().st_mode & 0o077 == 0
    assert capsys.readouterr().err.count("cannot be written (Not a directory)") == 1
    platforms._writable.cache_clear()
    assert platforms.cache_folder() == found
    assert capsys.readouterr().err == ""
    found.rename(tmp_path / "elsewhere")
    found.symlink_to(tmp_path / "elsewhere")
    platforms._writable.cache_clear()
    assert platforms.cache_folder() not in (found, tmp_path / "elsewhere")
