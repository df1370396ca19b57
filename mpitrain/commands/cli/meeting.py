"""Ranks that were asked for the same command: who they are before MPI, and how they compare what
was asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import click

from mpitrain import __version__
from mpitrain.job.config import OWN
from mpitrain.job.errors import UserError
from mpitrain.mpi.launch import begin, launched_ranks


def launched() -> bool:
    """Whether a launcher has started more processes than this."""
    launched = launched_ranks(os.environ)
    return launched is not None and launched[1] > 1


def rank() -> int:
    """This process's number in its job, also before it has joined MPI; launchers number their
    processes."""
    names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 0)


def compare(asked: Mapping[str, object], refused: str = "") -> None:
    """Join the job, and raise UserError, on every rank, unless all ranks were asked for the
    same."""
    begin(os.environ)
    from mpitrain.mpi.asked import compare
    from mpitrain.mpi.connect import connect

    compare(connect().agree, {**asked, "version": __version__}, refused)


def typed_options(ctx: click.Context) -> dict[str, object]:
    """The options of a command that must be alike on all ranks, by the names under which they are
    typed."""
    return {
        each.opts[0]: ctx.params[each.name]
        for each in ctx.command.params
        if each.name in ctx.params and each.name not in OWN
    }


def on_first_rank(command: Callable[[], Any]) -> Any:
    """Carry out a command that is no work for several ranks; all end as the first one does."""
    from mpitrain.mpi.connect import connect

    def carry_out() -> Any:
        try:
            return command()
        except click.ClickException as error:
            raise UserError(error.format_message()) from None

    return connect().agree.from_root(carry_out)
