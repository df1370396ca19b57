"""C = A B is exact on small whole numbers, whatever the shapes, the order of the operands and what
C starts from."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mpitrain.engine.gemm import Bias, Left, Result, matrix
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

SHAPES = [
    (1, 1, 1),
    (7, 5, 3),
    (8, 48, 16),
    (9, 47, 513),
    (64, 49, 520),
    (5, 100, 1030),
    (130, 23, 64),
    (3, 1000, 2),
]
GUARD = 99.0


def whole(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return random.integers(-4, 5, shape).astype(np.float32)


def guarded(device: Device, content: NDArray[np.float32]) -> Array:
    """The content with 128 guard values behind it."""
    return device.upload(np.append(content.ravel(), np.full(128, GUARD, np.float32)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("flip_a", [False, True], ids=["A", "A'"])
@pytest.mark.parametrize("flip_b", [False, True], ids=["B", "B'"])
def test_products_are_exact(
    device: Device, shape: tuple[int, int, int], flip_a: bool, flip_b: bool
) -> None:
    m, n, k = shape
    random, gemm = np.random.default_rng(m + n + k), device.gemm()
    a, b = whole(random, m, k), whole(random, k, n)
    left_array, right_array = (
        device.upload(a.T.copy() if flip_a else a),
        device.upload(b.T.copy() if flip_b else b),
    )
    left = Left(left_array, 1, m, k) if flip_a else Left(left_array, k, 1, k)
    right = matrix(right_array, 1, k) if flip_b else matrix(right_array, n, 1)
    scratch = device.empty((max(1, gemm.scratch(m, k)),))
    started, by_row, by_column = whole(random, m, n), whole(random, m), whole(random, n)
    cases = [
        (np.zeros_like(started), False, None),
        (started, True, None),
        (np.broadcast_to(by_row[:, None], (m, n)), False, Bias(device.upload(by_row), "row")),
        (np.broadcast_to(by_column, (m, n)), False, Bias(device.upload(by_column), "column")),
    ]
    for start, accumulate, bias in cases:
        c = guarded(device, started)
        gemm(Result(c, n, n), left, right, m, n, k, scratch, accumulate=accumulate, bias=bias)
        found = c.download()
        np.testing.assert_array_equal(
            found[: m * n].reshape(m, n), a.astype(np.float64) @ b + start
        )
        assert (found[m * n :] == GUARD).all()


def test_parts_of_larger_arrays_are_multiplied(device: Device) -> None:
    """Starts in all three arrays, rows further apart than they are long."""
    random, gemm = np.random.default_rng(0), device.gemm()
    a, b, c = whole(random, 12, 20), whole(random, 30, 40), whole(random, 16, 50)
    out = device.upload(c)
    gemm(
        Result(out, 50, 33, start=2 * 50 + 7),
        Left(device.upload(a), 20, 1, 9, start=3 * 20 + 4),
        matrix_at(device.upload(b), 40, 5 * 40 + 2),
        6, 33, 9, device.empty((max(1, gemm.scratch(6, 9)),)),
    )  # fmt: skip
    c[2:8, 7:40] = a[3:9, 4:13] @ b[5:14, 2:35]
    np.testing.assert_array_equal(out.download(), c)


def matrix_at(b: Array, row: int, start: int):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(matrix(b, row, 1), start=start)
