"""Check that the launcher and the loaded MPI library belong to one MPI."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from mpitrain.job.errors import UserError, agreed


def check_launch(size: int, environment: Mapping[str, str], library: str) -> None:
    """Raise UserError unless the communicator is as large as the launcher says.

    The mpirun of one MPI with the library of another starts N jobs of one rank each, silently.
    """
    launched = launched_ranks(environment)
    if launched is None or launched[1] == size:
        return
    variable, ranks = launched
    raise agreed(
        UserError(
            f"the launcher started {ranks} ranks ({variable}={ranks}), but MPI sees {size}: "
            f"launcher and library are not of one MPI; the library is {library}"
        )
    )


def begin(environment: Mapping[str, str]) -> None:
    """Start MPI where Open MPI's launcher has started this process, unless somebody has already.

    Raises UserError for MPICH's library, which would end the process in words of its own, and
    leave others to guess at what killed it. MPIR_CVAR_PMI_VERSION says that a library built with
    PMIx can do it.
    """
    if "OMPI_COMM_WORLD_SIZE" not in environment or "mpi4py.MPI" in sys.modules:
        return
    import mpi4py

    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    from mpi4py import MPI

    from mpitrain.mpi.ranks import library

    check_library(environment, library())
    MPI.Init_thread()


def check_library(environment: Mapping[str, str], library: str) -> None:
    """Raise UserError if Open MPI's launcher has started a process with MPICH's library."""
    if (
        library.startswith("MPICH")
        and "OMPI_COMM_WORLD_SIZE" in environment
        and "MPIR_CVAR_PMI_VERSION" not in environment
    ):
        raise agreed(
            UserError(
                "the launcher is Open MPI's, the library is not: launcher and library are not of "
                f"one MPI; the library is {library}"
            )
        )


def launched_ranks(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """The variable in which a launcher says how many ranks it started, and that number.

    None without a launcher. mpirun's variables come first: where Hydra starts its proxies by srun,
    SLURM's variables count proxies. SLURM's variables are used only in a numbered step, because a
    batch script and an interactive shell have them too.
    """
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if environment.get(variable, "").isdigit():
            return variable, int(environment[variable])
    step = environment.get("SLURM_STEP_ID", "")
    if step.isdigit() and int(step) < 0xFFFFFFF0:
        for variable in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
            if environment.get(variable, "").isdigit():
                return variable, int(environment[variable])
    return None


def outlives_ranks(environment: Mapping[str, str]) -> bool:
    """Whether the job goes on when a rank dies: `mpirun --with-ft ulfm` of Open MPI says so."""
    return environment.get("OMPI_MCA_mpi_ft_enable", "") in ("1", "true")
