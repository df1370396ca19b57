"""NumPy's side of a comparison: matrix products by the BLAS it came with, and operations on whole
arrays."""

from __future__ import annotations

import ctypes
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import cores, seconds_of, serve

works: dict[str, Any] = {}


def open_() -> dict[str, Any]:
    """Versions, and which of its kernels the BLAS has chosen."""
    blas: Any = np.show_config(mode="dicts")
    found = blas["Build Dependencies"]["blas"]
    return {
        "numpy": np.__version__,
        "blas": f"{found['name']} {found['version']}",
        "kernel": _kernel(),
        "threads": cores(),
    }


def _kernel() -> str:
    """The CPU that OpenBLAS takes this one for; "unknown" where it cannot be asked."""
    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)
    try:
        files = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        library = ctypes.CDLL(next(file for file in files if "openblas" in file))
    except (OSError, StopIteration):
        return "unknown"
    for name in (
        "scipy_openblas_get_corename64_",
        "scipy_openblas_get_corename",
        "openblas_get_corename",
    ):
        if hasattr(library, name):
            ask = getattr(library, name)
            ask.restype = ctypes.c_char_p
            return str(ask().decode())
    return "unknown"


def product(m: int, n: int, k: int, a_lies: str, b_lies: str) -> None:
    """Prepare "product"."""
    works.clear()  # gives the memory of the one before back
    a, b = operands(m, n, k, a_lies, b_lies)
    out = np.empty((m, n), np.float32)
    works["product"] = partial(seconds_of, partial(np.matmul, a, b, out=out))


def elementwise(operation: str, rows: int, columns: int) -> None:
    """Prepare "elementwise"."""
    works.clear()
    call, x = OPERATIONS[operation], positive(operation, rows, columns)
    out = np.empty((rows, columns), np.float32)
    works["elementwise"] = partial(seconds_of, partial(call, *x, out=out))


OPERATIONS: dict[str, Any] = {"add": np.add, "log": np.log}
"""Of whole arrays, value by value."""


def operands(m: int, n: int, k: int, a_lies: str, b_lies: str) -> tuple[Any, Any]:
    """A (M, K) and B (K, N) of a product; what lies in columns is a transposed view."""
    random = np.random.default_rng(0)
    a = random.standard_normal((k, m) if a_lies == "columns" else (m, k), np.float32)
    b = random.standard_normal((n, k) if b_lies == "columns" else (k, n), np.float32)
    return a.T if a_lies == "columns" else a, b.T if b_lies == "columns" else b


def positive(operation: str, rows: int, columns: int) -> list[Any]:
    """The operands of an operation: numbers above 0 and up to 1, which have a logarithm."""
    random = np.random.default_rng(0)
    return [
        1 - random.random((rows, columns), np.float32) for _ in range(OPERATIONS[operation].nin)
    ]


if __name__ == "__main__":
    serve(
        {
            "open": open_,
            "product": product,
            "elementwise": elementwise,
            "time": lambda name: works[name](),
        }
    )
