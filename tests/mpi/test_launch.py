"""Launchers and libraries that do not belong together are noticed."""

from __future__ import annotations

import pytest

from mpitrain.job.errors import UserError
from mpitrain.mpi.launch import check_launch, check_library, launched_ranks

LAUNCHES = [
    ({}, None),
    ({"PMI_SIZE": "4"}, ("PMI_SIZE", 4)),
    ({"OMPI_COMM_WORLD_SIZE": "3", "PMI_SIZE": "4"}, ("OMPI_COMM_WORLD_SIZE", 3)),
    ({"SLURM_NTASKS": "8"}, None),  # a batch script: nothing was launched yet
    ({"SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"}, ("SLURM_NTASKS", 8)),
    ({"SLURM_NTASKS": "8", "SLURM_STEP_ID": "4294967290"}, None),  # an interactive step
    (
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "1", "PMI_SIZE": "8"},
        ("PMI_SIZE", 8),
    ),  # hydra's proxies
]


@pytest.mark.parametrize(("environment", "expected"), LAUNCHES)
def test_the_launchers_count_is_found(
    environment: dict[str, str], expected: tuple[str, int] | None
) -> None:
    assert launched_ranks(environment) == expected


def test_two_mpis_mixed_are_noticed() -> None:
    check_launch(4, {"PMI_SIZE": "4"}, "MPICH")
    with pytest.raises(UserError, match=r"started 4 ranks \(PMI_SIZE=4\), but MPI sees 1"):
        check_launch(1, {"PMI_SIZE": "4"}, "Open MPI")


def test_mpichs_library_is_not_for_open_mpis_launcher() -> None:
    started = {"OMPI_COMM_WORLD_SIZE": "2"}
    check_library(started, "Open MPI v5.0.11 (/lib/libmpi.so.40)")
    check_library({"PMI_SIZE": "2"}, "MPICH 5.0.2 (/lib/libmpi.so.12)")
    check_library({**started, "MPIR_CVAR_PMI_VERSION": "x"}, "MPICH 5.0.2 (/lib/libmpi.so.12)")
    with pytest.raises(UserError, match=r"launcher is Open MPI's, .* the library is MPICH 5\.0\.2"):
        check_library(started, "MPICH 5.0.2 (/lib/libmpi.so.12)")
