"""Check that the launcher and the loaded MPI library belong to one MPI."""

from __future__ import annotations

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
