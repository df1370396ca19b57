"""What is changed in the PTX that NVIDIA's OpenCL compiler makes of a program, before the driver
assembles it.

Instructions of newer chips that the compiler does not let through travel as comments: kernels write
them in inline PTX behind a mark (kernels/nvidia/tensor.h). Here the marks are taken away, and the
target becomes the chip's own instruction set. And pointers that kernels take become numbers.
"""

from __future__ import annotations

import re

import pyopencl as cl

MARK = "//@@ "
"""Before an instruction that only Hopper's own target (sm_90a) has."""
LOCAL_MARK = re.compile(r"//@local (\d+)")
LOCAL_ARRAY = re.compile(r"(\.shared \.align )\d+( \.b8 [^\s\[]+\[)32768(\];)")
"""The array `tiles` of the kernels, which OpenCL C keeps at 32 KiB."""
RESIDENT_MARK = re.compile(r"//@resident (\d+)")
POINTER = re.compile(r"(\.param \.u64) \.ptr \.global(?: \.align \d+)?")
"""A kernel's parameter that the driver wants a buffer for."""
GROUP_SIZE = re.compile(r"^\.reqntid .*$", re.MULTILINE)
LARGEST_LOCAL = 226 << 10
"""Bytes of local memory that ran on an H200; one KiB more is refused."""


def capability(device: cl.Device) -> tuple[int, int]:
    """Compute capability of one of NVIDIA's GPUs, as (9, 0); (0, 0) for any other device."""
    try:
        return device.compute_capability_major_nv, device.compute_capability_minor_nv
    except (cl.Error, AttributeError):
        return 0, 0


def is_marked(source: str) -> bool:
    """Whether a program's PTX has to go through `retarget`."""
    return MARK in source


def retarget(ptx: str) -> str:
    """PTX as the driver made it from kernels, with marked instructions in place and as much local
    memory as they ask for.

    A kernel may also say how many of its groups must fit on a unit at once, which limits its
    registers.

    Raises ValueError for more than one size, or where the array is missing: the text is not what it
    was made for.
    """
    if MARK in ptx:
        ptx = ptx.replace(MARK, "")
        ptx = re.sub(r"^\.target sm_90\b", ".target sm_90a", ptx, flags=re.MULTILINE)
    for resident in set(RESIDENT_MARK.findall(ptx)):
        ptx = GROUP_SIZE.sub(rf"\g<0>\n.minnctapersm {resident}", ptx)
    sizes = {int(size) for size in LOCAL_MARK.findall(ptx)}
    if not sizes:
        return ptx
    if len(sizes) > 1 or max(sizes) > LARGEST_LOCAL:
        raise ValueError(
            f"local memory of {sorted(sizes)} bytes wanted, expected one size up to {LARGEST_LOCAL}"
        )
    ptx, found = LOCAL_ARRAY.subn(rf"\g<1>1024\g<2>{sizes.pop()}\g<3>", ptx)
    if not found:
        raise ValueError("no array of 32 KiB in the program's local memory")
    return ptx


def by_address(ptx: str) -> str:
    """PTX whose kernels take 64-bit addresses where they took buffers (runtime/addresses.py)."""
    return POINTER.sub(r"\g<1>", ptx)
