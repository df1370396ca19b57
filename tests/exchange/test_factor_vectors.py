"""The bytes of low-rank factors in docs/wire.md: three ranks in one process make the messages that
a plain reading of it made (make_vectors.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from make_vectors import BUCKET, IMAGES, LEFT, LEFT_ROOM, RANKS, RIGHT, STEP
from ranks import open_cpu
from test_vectors import PHASES, VECTORS, Post, carried_by

from mpitrain.exchange.bucket import Bucket, Matrix
from mpitrain.exchange.codec import make_scale
from mpitrain.exchange.lowrank8 import LowRank8
from mpitrain.exchange.message import HEADER, Label, check
from mpitrain.exchange.strategy import Parts, Turn
from mpitrain.job.errors import RunError
from mpitrain.mpi.hops import complete

FOLDER = VECTORS / "factors"
MESSAGES = sorted((FOLDER / "messages").iterdir())
MATRIX = Matrix(0, LEFT, RIGHT)


def read(name: str) -> np.ndarray:
    return np.fromfile(FOLDER / name, "<f4").astype(np.float32)


def label_of(path: Path) -> Label:
    kind = path.stem.split("-")[0]
    count = 512 if kind in ("parts", "means") else LEFT_ROOM
    return Label(1, 512, BUCKET, PHASES[kind], STEP, count)


def prepare(rank: int, post: Post) -> Callable[[], None]:
    device = open_cpu()
    bucket = Bucket(BUCKET, 0, -(-MATRIX.size // 512) * 512, True, (MATRIX,))
    gradient = device.zeros((bucket.size,))
    strategy = LowRank8(
        Parts(
            SimpleNamespace(transfer=post),  # type: ignore[arg-type]
            device,
            gradient,
            None,
            {BUCKET: gradient},
            [bucket],
            True,
            make_scale(device),
            "1",
        )
    )
    return lambda: one_rank(rank, strategy, bucket)


def one_rank(rank: int, strategy: LowRank8, bucket: Bucket) -> None:
    factors, turn = strategy._coded[BUCKET].factors, Turn(STEP, 0)

    def choose(left: np.ndarray) -> None:
        """Rank 0 is free in how it makes columns orthonormal."""
        np.testing.assert_array_equal(left, read("after/left-sum.f32"))
        left[:] = read("before/columns.f32")

    factors.make_orthonormal = choose  # type: ignore[method-assign]
    factors.left.write(read(f"before/left-{rank}.f32"))
    assert complete(strategy._sum_left(factors, bucket, turn))
    np.testing.assert_array_equal(factors.left.download(), read("after/columns.f32"))

    right, begin = read(f"before/right-{rank}.f32"), factors.begin_right

    def begin_with_a_tensor() -> None:
        begin()
        factors.missing.write(read(f"before/missing-{rank}.f32"))

    factors.begin_right = begin_with_a_tensor  # type: ignore[method-assign]
    factors.own.write(right)
    assert complete(strategy._average_right(factors, bucket, IMAGES, turn))
    np.testing.assert_array_equal(factors.total.download(), read("after/right-mean.f32"))
    own = factors.own.download()
    np.testing.assert_array_equal(own, read(f"after/right-own-{rank}.f32"))


def test_three_ranks_make_the_messages_of_the_files() -> None:
    carried = carried_by(prepare)
    assert sorted(carried) == [path.name for path in MESSAGES]
    for path in MESSAGES:
        message = np.fromfile(path, np.uint8)
        check(message, label_of(path), 1)
        assert carried[path.name] == message.tobytes(), path.name


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_a_message_with_any_byte_changed_is_refused(path: Path) -> None:
    message = np.fromfile(path, np.uint8)
    for place in [*range(HEADER), *range(HEADER, message.size, 97), message.size - 1]:
        changed = message.copy()
        changed[place] ^= 0x40
        with pytest.raises(RunError, match="message from rank 1"):
            check(changed, label_of(path), 1)


def test_the_document_knows_every_file() -> None:
    text = (VECTORS.parents[2] / "docs" / "wire.md").read_text()
    assert all(path.name in text for path in MESSAGES)
    assert len(MESSAGES) == 2 + 1 + 2 * RANKS * (RANKS - 1)
