"""Let PoCL's wheel compile on CPUs younger than its compiler.

PoCL 3.0 asks its LLVM 14 for the CPU's name, gets "generic" for one it does not know (AMD's Zen 5), and then refuses that very
name when it compiles: "unknown target CPU 'generic'" (pocl issue 1049). No option or variable overrides it, but the name is a
field of PoCL's device record, beside the target triple, so it can be given a name that LLVM 14 knows.
"""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import pyopencl as cl

FIELDS = 128
"""Words of the device record to look through: the field is the 81st in PoCL 3.0, and the record longer than this."""

_given: dict[int, ctypes.Array[ctypes.c_char]] = {}
"""Device record -> the name it was given; PoCL keeps pointers to these for as long as the process lives."""


NAMES = (
    ("skylake-avx512", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("znver3", {"avx2", "fma"}),
    ("x86-64-v2", set()),
)
"""Names that LLVM 14 knows, and what /proc/cpuinfo must list for a CPU to run what it compiles for them; the best first."""


def name_cpu(device: cl.Device) -> str | None:
    """Give a PoCL device whose CPU is "generic" a name that its compiler knows. Returns it, None where none was needed."""
    if device.int_ptr in _given:
        return _given[device.int_ptr].value.decode()
    words = (ctypes.c_uint64 * FIELDS).from_address(device.int_ptr)
    readable = _readable()
    texts = [_text(word, readable) for word in words]
    for at, (before, text) in enumerate(itertools.pairwise(texts)):
        if before.startswith(b"x86_64-") and text == b"generic":
            flags = set(Path("/proc/cpuinfo").read_text().split())
            name = next(name for name, needed in NAMES if needed <= flags)
            _given[device.int_ptr] = ctypes.create_string_buffer(name.encode())
            words[at + 1] = ctypes.addressof(_given[device.int_ptr])
            return name
    return None


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
