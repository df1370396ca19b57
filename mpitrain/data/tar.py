"""The regular files in a tar, by its headers alone: an open tar in, names and places out.

Source: POSIX.1-2001, pax interchange format; GNU tar's manual, "Basic tar format", for long names
and binary sizes. Every header's sum is checked, since a damaged tar must not be a shorter one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mpitrain.job.config import whole
from mpitrain.job.errors import UserError

BLOCK = 512
LONGEST_HEADER = 1 << 20
"""Bytes of a member that only holds another member's long name."""
LONGEST_PADDING = 1 << 20
"""Bytes behind the end that are looked at."""


@dataclass(frozen=True)
class Member:
    """A regular file in a tar."""

    name: str
    start: int
    size: int


def members(shard: Path, file: IO[bytes]) -> Iterator[Member]:
    """The regular files in an open tar. Raises UserError for what is no tar, damaged or cut
    short."""
    length = os.fstat(file.fileno()).st_size
    at, long_name, long_size = 0, "", None
    while at < length:
        file.seek(at)
        header = file.read(BLOCK)
        if not header.strip(b"\0") and len(header) == BLOCK:
            if file.read(LONGEST_PADDING).strip(b"\0"):
                raise UserError(f"{shard}: it goes on after its end, as if tars had been joined")
            return
        name, size, kind = _header(shard, at, header)
        size = size if long_size is None else long_size
        start = at + BLOCK
        if size > length - start:
            raise UserError(
                f"{shard}: {(long_name or name)[:80]!r} has {size} bytes, and only "
                f"{length - start} follow; it is cut short or damaged"
            )
        at = start + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind in b"xL":
            if size > LONGEST_HEADER:
                raise UserError(f"{shard}: a name of {size} bytes")
            content = file.read(size)
            if kind == b"L":
                long_name = _text(content)
            else:
                facts = _pax(shard, content)
                long_name, long_size = facts.get("path", long_name), _size(shard, facts)
            continue
        if kind in b"0\0":
            yield Member(long_name or name, start, size)
        if kind != b"g":
            long_name, long_size = "", None
    raise UserError(f"{shard}: its end is missing; it is cut short")


def _header(shard: Path, at: int, header: bytes) -> tuple[str, int, bytes]:
    """Name, size and type in a header, whose sum must be right."""
    total = sum(header[:148]) + sum(header[156:]) + 8 * 32
    if len(header) < BLOCK or _number(header[148:156]) != total:
        where = f"damaged at byte {at}" if at else "no tar"
        raise UserError(f"{shard}: {where}; expected a tar of images and .cls files")
    size = _number(header[124:136])
    if size is None:
        raise UserError(f"{shard}: damaged at byte {at}: a size that is no number")
    name, prefix = _text(header[:100]), _text(header[345:500])
    ustar = header[257:263] == b"ustar\0"
    return f"{prefix}/{name}" if ustar and prefix else name, size, header[156:157]


def _number(field: bytes) -> int | None:
    """A number in octal digits, or binary after a first bit that is set (GNU); None for what is
    none."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        return None
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _pax(shard: Path, content: bytes) -> dict[str, str]:
    """The records of a pax header, "LENGTH NAME=VALUE\\n" each."""
    found: dict[str, str] = {}
    while content:
        digits, _, _ = content.partition(b" ")
        length = whole(digits.decode("ascii", "replace")) or 0
        record = content[len(digits) + 1 : length - 1]
        name, equals, value = record.partition(b"=")
        if not equals or not len(digits) < length <= len(content):
            raise UserError(f"{shard}: damaged: a header that is no header of pax")
        found[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        content = content[length:]
    if "GNU.sparse.major" in found:
        raise UserError(f"{shard}: {found.get('GNU.sparse.name', '')[:80]!r} is stored with holes")
    return found


def _size(shard: Path, facts: dict[str, str]) -> int | None:
    """A size that a pax header says, where it says one."""
    if "size" not in facts:
        return None
    size = whole(facts["size"])
    if size is None:
        raise UserError(f"{shard}: damaged: a size that is no number")
    return size
