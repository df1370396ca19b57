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

_names: list[ctypes.Array[ctypes.c_char]] = []
"""PoCL keeps pointers to these for as long as the process lives."""


def name_cpu(device: cl.Device) -> bool:
    """Give a PoCL device whose CPU is "generic" a name that its compiler knows. Returns whether it needed one."""
    words = (ctypes.c_uint64 * FIELDS).from_address(device.int_ptr)
    readable = _readable()
    texts = [_text(word, readable) for word in words]
    for at, (before, text) in enumerate(itertools.pairwise(texts)):
        if before.startswith(b"x86_64-") and text == b"generic":
            avx2 = " avx2 " in Path("/proc/cpuinfo").read_text()
            _names.append(ctypes.create_string_buffer(b"znver3" if avx2 else b"x86-64-v2"))
            words[at + 1] = ctypes.addressof(_names[-1])
            return True
    return False


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
