"""Write the messages of two small exchanges of three ranks, of a gradient and of low-rank factors,
as docs/wire.md says them: `python tests/exchange/make_vectors.py`.

Knows nothing of the package, and does everything the slow way: the nearest code by looking at all
of them. tests/exchange/test_vectors.py holds the package to the files.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "vectors"
RANKS, VALUES, IMAGES, STEP, BUCKET = 3, 1100, 6, 7, 2
RATE = np.float32(0.125)
LEFT, RIGHT = 600, 1100
"""Values of a bucket's P and Q."""
LEFT_ROOM, RIGHT_ROOM = 1024, 1536
"""Values that travel for them: whole blocks."""

POSITIVE = np.array(
    [0.0]
    + [
        10.0**-e * (0.1 + 0.9 * (k + 0.5) / 2 ** (6 - e))
        for e in (5, 4, 3, 2, 1, 0)
        for k in range(2 ** (6 - e))
    ]
    + [1.0]
).astype(np.float32)


def coded(v: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A vector as records, and what they decode to."""
    records, decoded = b"", []
    for start in range(0, v.size, 512):
        block = np.zeros(512, np.float32)
        block[: v[start : start + 512].size] = v[start : start + 512]
        exponent = 47
        while np.abs(block).max() > 2.0 ** (exponent - 127):
            exponent += 1
        unit = np.abs(block).astype(np.float64) / 2.0 ** (exponent - 127)
        index = np.abs(unit[:, None] - POSITIVE.astype(np.float64)).argmin(
            axis=1
        )  # the first, so ties go to zero
        negative = (block < 0) & (index > 0)
        records += bytes([exponent, *(index + 128 * negative)])
        decoded.append(
            np.where(negative, -1, 1) * POSITIVE[index].astype(np.float64) * 2.0 ** (exponent - 127)
        )
    return records, np.concatenate([np.zeros(0), *decoded])[: v.size].astype(np.float32)


def message(
    phase: int, count: int, records: bytes, bound: float = 0.0, bucket: int = BUCKET
) -> bytes:
    head = struct.pack("<4sBBHIIQQf", b"mpiT", 1, 1, 512, bucket, phase, STEP, count, bound)
    return head + struct.pack("<I", zlib.crc32(head + records)) + records


def bound_of(records: bytes) -> np.ndarray:
    half_step = float(np.diff(POSITIVE.astype(np.float64)).max() / 2)
    return np.array([half_step * 2.0 ** (records[at] - 127) for at in range(0, len(records), 513)])


def exchange(
    gradients: list[np.ndarray],
    residuals: list[np.ndarray],
    owned: list[np.ndarray],
    y: np.ndarray,
    master: np.ndarray,
) -> dict[str, Any]:
    """All messages of one bucket, and what each rank holds afterwards."""
    found: dict[str, Any] = {}
    cuts = [(0, 512), (512, 1024), (1024, VALUES)]  # three blocks, one a rank
    parts = []
    for rank in range(RANKS):
        v = gradients[rank] + residuals[rank]
        records, decoded = coded(v)
        found[f"after/sender-residual-{rank}.f32"] = v - decoded
        parts.append((records, decoded))
    mean, bounds = np.zeros(VALUES, np.float32), []
    for owner, (start, stop) in enumerate(cuts):
        total, bound = np.zeros(stop - start, np.float32), np.zeros(1)
        for sender in range(RANKS):
            records = parts[sender][0][owner * 513 : owner * 513 + 513]
            if sender != owner:
                found[f"messages/parts-{sender}-to-{owner}.bin"] = message(0, stop - start, records)
            total = total + parts[sender][1][start:stop]
            bound = bound + bound_of(records) / IMAGES
        v = total * np.float32(1 / IMAGES) + owned[owner]
        records, decoded = coded(v)
        found[f"after/owner-residual-{owner}.f32"] = v - decoded
        bounds.append(float((bound + bound_of(records)).max()))
        if owner > 0:
            found[f"messages/means-{owner}-to-0.bin"] = message(
                1, stop - start, records, bounds[-1]
            )
        mean[start:stop] = decoded
    found["after/mean.f32"] = mean
    w = master - RATE * mean
    records, decoded = coded(w - y)
    found["messages/deltas-0-to-all.bin"] = message(2, VALUES, records)
    found["after/weights.f32"] = y + decoded
    return found


def factors(
    lefts: list[np.ndarray],
    columns: np.ndarray,
    rights: list[np.ndarray],
    missing: list[np.ndarray],
) -> dict[str, Any]:
    """All messages of one bucket's P and Q, which every rank gets; and what is known afterwards.

    missing: what each rank adds to its Q, as to a tensor without factors.
    """
    found: dict[str, Any] = {}
    total = lefts[0]
    for rank in (1, 2):
        records, decoded = coded(lefts[rank])
        found[f"messages/left-{rank}-to-0.bin"] = message(4, LEFT_ROOM, records)
        total = total + decoded
    found["after/left-sum.f32"] = total
    records, decoded = coded(columns)
    found["messages/columns-0-to-all.bin"] = message(5, LEFT_ROOM, records)
    found["after/columns.f32"] = decoded
    cuts = [(0, 512), (512, 1024), (1024, RIGHT_ROOM)]
    parts, own = [], []
    for rank in range(RANKS):
        v = rights[rank] + missing[rank]
        records, decoded = coded(v)
        parts.append((records, decoded))
        own.append(v - decoded)
    mean = np.zeros(RIGHT_ROOM, np.float32)
    for owner, (start, stop) in enumerate(cuts):
        total, bound = np.zeros(stop - start, np.float32), np.zeros(1)
        for sender in range(RANKS):
            records = parts[sender][0][owner * 513 : owner * 513 + 513]
            if sender != owner:
                name = f"messages/parts-{sender}-to-{owner}.bin"
                found[name] = message(0, stop - start, records)
            total = total + parts[sender][1][start:stop]
            bound = bound + bound_of(records) / IMAGES
        v = total * np.float32(1 / IMAGES)
        records, decoded = coded(v)
        own[owner][start:stop] += (v - decoded) * np.float32(IMAGES)
        for peer in {0, 1, 2} - {owner}:
            found[f"messages/means-{owner}-to-{peer}.bin"] = message(
                1, stop - start, records, float((bound + bound_of(records)).max())
            )
        mean[start:stop] = decoded
    found["after/right-mean.f32"] = mean
    for rank in range(RANKS):
        found[f"after/right-own-{rank}.f32"] = rights[rank] - own[rank]
    return found


def main() -> None:
    random = np.random.default_rng(3)

    def draw(size: int, spread: float) -> np.ndarray:
        return (
            random.standard_normal(size) * np.exp(random.standard_normal(size)) * spread
        ).astype(np.float32)

    gradients = [draw(VALUES, 1.0) for _ in range(RANKS)]
    gradients[1][512:1024] = 0  # a block of zeros
    gradients[2][:4] = [1.0, -1.0, 1e-30, -0.0]
    residuals = [draw(VALUES, 0.01) for _ in range(RANKS)]
    owned = [draw(size, 0.001) for size in (512, 512, VALUES - 1024)]
    y, master = draw(VALUES, 0.1), None
    master = y + draw(VALUES, 0.0001)
    files: dict[str, Any] = {"before/weights.f32": y, "before/master.f32": master}
    for rank in range(RANKS):
        files[f"before/gradient-{rank}.f32"] = gradients[rank]
        files[f"before/sender-residual-{rank}.f32"] = residuals[rank]
        files[f"before/owner-residual-{rank}.f32"] = owned[rank]
    files |= exchange(gradients, residuals, owned, y, master)
    lefts, rights, missing = (
        [np.append(draw(size, spread), np.zeros(gap, np.float32)) for _ in range(RANKS)]
        for size, gap, spread in (
            (LEFT, LEFT_ROOM - LEFT, 3.0),
            (RIGHT, RIGHT_ROOM - RIGHT, 1.0),
            (RIGHT, RIGHT_ROOM - RIGHT, 0.01),
        )
    )
    columns = np.append(draw(LEFT, 0.03), np.zeros(LEFT_ROOM - LEFT, np.float32))
    of_factors: dict[str, Any] = {"before/columns.f32": columns}
    for rank in range(RANKS):
        of_factors[f"before/left-{rank}.f32"] = lefts[rank]
        of_factors[f"before/right-{rank}.f32"] = rights[rank]
        of_factors[f"before/missing-{rank}.f32"] = missing[rank]
    of_factors |= factors(lefts, columns, rights, missing)
    files |= {f"factors/{name}": content for name, content in of_factors.items()}
    rows = draw(VALUES, 1.0)
    records, files["after/rows.f32"] = coded(rows)
    files["before/rows.f32"] = rows
    records = records[: VALUES + 3]  # a byte a value, and three scales
    files["messages/rows-0-to-1.bin"] = message(3, VALUES, records, bucket=0)
    for name, content in files.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
