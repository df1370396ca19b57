"""Memory that ranks of a host share."""

from __future__ import annotations

import ctypes

import pytest

from mpitrain.mpi.connect import connect

pytestmark = pytest.mark.mpi

COUNT = 1 << 18


def soil_the_heap() -> None:
    """Leave behind what malloc gives out again: a larger piece that is freed first makes it keep
    such pieces, where it would return them to the system."""
    malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
    malloc.restype, malloc.argtypes, free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    for size in (80 * COUNT, 16 * COUNT):
        piece, behind = malloc(size), malloc(64)
        ctypes.memset(piece, 0x41, size)
        free(piece)
        free(behind)


def test_what_is_kept_holds_zeros_when_it_is_given_out() -> None:
    """Also the memory of one rank alone, which MPICH takes from the heap."""
    soil_the_heap()
    wire = connect()
    for count in (COUNT, COUNT // 2):
        memory = wire.shared.keep(count)
        assert memory is not None and memory.shape == (count,)
        assert not memory.any()
        wire.agree.barrier()
        memory[:] = 1 + wire.ranks.rank
