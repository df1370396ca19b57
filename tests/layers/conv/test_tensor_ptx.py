"""The tensor-core kernels compile to PTX and assemble for their chips, where clang and NVIDIA's
assembler are there; no GPU is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mpitrain.layers.conv.tensor_rows import FORMATS, Format
from mpitrain.layers.conv.tensor_tiles import TILES, Tile, definitions, filter_definitions
from mpitrain.runtime import nvidia
from mpitrain.runtime.program import read_source

CLANG = next(filter(shutil.which, ("clang", "clang-14", "clang-15", "clang-16", "clang-19")), None)
BUILT_IN = """
#define FN static inline __attribute__((overloadable, always_inline))
FN int get_local_id(int i) { return __nvvm_read_ptx_sreg_tid_x(); }
FN int get_group_id(int i) {
    return i ? __nvvm_read_ptx_sreg_ctaid_y() : __nvvm_read_ptx_sreg_ctaid_x();
}
FN int min(int a, int b) { return a < b ? a : b; }
FN int max(int a, int b) { return a > b ? a : b; }
FN int clamp(int a, int b, int c) { return min(max(a, b), c); }
FN float4 select(float4 a, float4 b, int4 c) { return c ? b : a; }
FN void barrier(int fence) { __nvvm_bar_sync(0); }
#define CLK_LOCAL_MEM_FENCE 1
"""
"""What a driver's compiler brings itself."""


def assembled(name: str, facts: dict[str, int], folder: Path) -> str:
    """What the assembler says about a kernel file built with these facts."""
    if not CLANG or not shutil.which("ptxas"):
        pytest.skip(f"{name} was not compiled to PTX and assembled: that takes clang and ptxas")
    source, ptx = folder / "kernel.cl", folder / "kernel.ptx"
    source.write_text(BUILT_IN + read_source(name, ("nvidia",)))
    target = [
        "-target",
        "nvptx64-nvidia-nvcl",
        "-Xclang",
        "-target-cpu",
        "-Xclang",
        "sm_80",
        "-Xclang",
        "-target-feature",
    ]
    options = [
        "-cl-std=CL1.2",
        "-Dasm=__asm__",
        "-D__NV_CL_C_VERSION=120",
        "-O3",
        "-Wno-everything",
        *(f"-D{key}={value}" for key, value in facts.items()),
    ]
    command = [
        CLANG,
        "-x",
        "cl",
        *target,
        "-Xclang",
        "+ptx70",
        *options,
        "-S",
        "-o",
        str(ptx),
        str(source),
    ]
    subprocess.run(command, check=True)
    text = re.sub(r"^\.version .*$", ".version 8.0", ptx.read_text(), flags=re.MULTILINE)
    text = re.sub(
        r"^\.target .*$",
        ".target sm_90" if facts["ON_HOPPER"] else ".target sm_80",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(
        r"(\.b8 \S+)\[\d{5,}\]", r"\1[32768]", nvidia.by_address(nvidia.retarget(text))
    )  # the assembler alone allows 48 KiB
    ptx.write_text(text)
    arch = "sm_90a" if facts["ON_HOPPER"] else "sm_80"
    done = subprocess.run(
        ["ptxas", "-v", f"-arch={arch}", str(ptx), "-o", str(folder / "kernel.cubin")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("hopper", [1, 0])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("tile", TILES.values(), ids=str)
def test_correlations_assemble_without_spilling(
    fmt: Format, tile: Tile, hopper: int, tmp_path: Path
) -> None:
    said = assembled("tensor", definitions(fmt, tile, bool(hopper)), tmp_path)
    assert " 0 bytes spill stores" in said
    assert "wgmma" not in said, "products wait for each other"


@pytest.mark.parametrize("hopper", [1, 0])
@pytest.mark.parametrize("fmt", ["bf16", "high"])
@pytest.mark.parametrize("tile", TILES.values(), ids=str)
def test_gradients_by_filters_assemble_without_spilling(
    fmt: Format, tile: Tile, hopper: int, tmp_path: Path
) -> None:
    said = assembled("tensor_filter", filter_definitions(fmt, tile, bool(hopper)), tmp_path)
    assert " 0 bytes spill stores" in said
    assert "wgmma" not in said, "products wait for each other"
