"""Let PoCL's wheel compile, and compile well, on CPUs younger than its compiler.

PoCL 3.0 asks its LLVM 14 for the CPU's name, gets "generic" for one it does not know (AMD's Zen 5),
and then refuses that very name when it compiles: "unknown target CPU 'generic'" (pocl issue 1049).
Zen 4 it takes for a Zen 3, which has no AVX-512. But it looks at the CPU's real features when it
chooses its library of built-in functions, and that one is compiled for Skylake's AVX-512. LLVM
inlines a function only where the caller's CPU has all that the function's has, so with the name of
a lesser CPU each vload8 and min stays a call, with the registers saved round it, and functions of
512-bit vectors, which the caller cannot pass, end the process. No option or variable overrides the
name, but it is a field of PoCL's device record, beside the target triple, so it can be set to the
name that the library was compiled for.
"""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import pyopencl as cl

FIELDS = 128
"""Words of the device record to look through: the field is the 81st in PoCL 3.0, and the record
longer than this."""

_names: list[ctypes.Array[ctypes.c_char]] = []
"""PoCL keeps pointers to these for as long as the process lives."""


AVX512 = {
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "avx2",
    "fma",
    "f16c",
    "bmi1",
    "bmi2",
    "abm",
    "movbe",
}
"""What a compiler uses of a skylake-avx512 by itself, as /proc/cpuinfo writes it."""


def name_cpu(device: cl.Device) -> str:
    """The CPU that a PoCL device compiles for, after giving it a name that suits where its compiler
    does not know the CPU."""
    words = (ctypes.c_uint64 * FIELDS).from_address(device.int_ptr)
    readable = _readable()
    texts = [_text(word, readable).decode("ascii", "replace") for word in words]
    for at, (before, text) in enumerate(itertools.pairwise(texts)):
        if before.startswith("x86_64-"):
            name = suitable_name(text, _flags())
            if name != text:
                _names.append(ctypes.create_string_buffer(name.encode()))
                words[at + 1] = ctypes.addressof(_names[-1])
            return name
    return ""


def suitable_name(name: str, flags: set[str]) -> str:
    """The name to compile for on a CPU that PoCL calls `name`: the same if it is known, else one
    whose instructions the CPU has."""
    if name not in ("generic", "znver3"):
        return name
    if flags >= AVX512:
        return "skylake-avx512"
    return "znver3" if "avx2" in flags else "x86-64-v2"


def _flags() -> set[str]:
    """Names of the CPU's instruction sets."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.split()[2:]) for line in lines if line.startswith("flags")), set())


def _readable() -> list[tuple[int, int]]:
    """Address ranges of this process that may be read."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, mode = line.split()[:2]
        if mode.startswith("r"):
            start, stop = addresses.split("-")
            ranges.append((int(start, 16), int(stop, 16)))
    return ranges


def _text(address: int, readable: list[tuple[int, int]]) -> bytes:
    """The first bytes of the C string at an address, nothing if it does not point anywhere."""
    if not any(start <= address and address + 16 <= stop for start, stop in readable):
        return b""
    return ctypes.string_at(address, 16).split(b"\0")[0]
