"""Training steps of the command on several GPUs of a host, by kind of exchange, and on one of them.

All runs are of the command, by its log; batches come from host memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_steps import CASES, ONLY, GpuCommand, write_images
from measure import rates, ratios, spread
from rich.table import Table
from steps import three

KINDS = ("window", "dynamic8")
PRECISION = "bf16"
IMAGES = 2048
"""So that an epoch has some steps."""
STEPS = {"lenet": 600}
"""Steps of one run; 60 where none are given, among them one after which ranks are compared."""


class RanksCommand(GpuCommand):
    """`mpirun -n RANKS mpitrain train NETWORK --exchange KIND`, each rank with a GPU of its own."""

    def __init__(
        self,
        network: str,
        batch: int,
        device: str,
        precision: str,
        data: Path,
        ranks: int = 1,
        exchange: str = "auto",
    ) -> None:
        """batch: images a rank."""
        super().__init__(network, batch * ranks, device, precision, data)
        self.ranks, self.steps, self._exchange = ranks, STEPS.get(network, 60), exchange

    def words(self) -> list[str]:
        started = ["mpirun", "--bind-to", "none", "-n", str(self.ranks), *super().words()]
        return [*started, "--exchange", self._exchange]


def rows(
    networks: Sequence[str],
    device: str,
    n: int,
    ranks: int,
    kinds: Sequence[str],
    precisions: Sequence[str],
    batches: Sequence[int] = (),
) -> Iterator[dict[str, Any]]:
    """One a network, number of images a rank (of those given, if any), precision and kind."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_images(Path(folder), IMAGES)
        for network in networks:
            for batch in (each for each in CASES[network] if each in batches or not batches):
                for precision in ONLY.get(network, precisions):
                    case = network, batch, device, precision, data
                    alone = RanksCommand(*case)
                    seconds = [alone() for _ in range(n)]
                    for kind in kinds:
                        together = RanksCommand(*case, ranks, kind)
                        yield _row(together, alone, seconds, precision, kind, n)


def _row(
    command: RanksCommand,
    alone: RanksCommand,
    seconds: Sequence[float],
    precision: str,
    kind: str,
    n: int,
) -> dict[str, Any]:
    ours = [command() for _ in range(n)]
    return {
        "network": command.network,
        "batch": alone.batch,
        "precision": precision,
        "ranks": command.ranks,
        "exchange": kind,
        "command": command.shown(),
        "ours": {
            "images_per_second": rates(command.batch, ours),
            "seconds": spread(ours),
            **command.figures(n),
        },
        "alone": {
            "images_per_second": rates(alone.batch, seconds),
            "seconds": spread(seconds),
            **alone.figures(n),
        },
        "ratio": ratios([each / command.ranks for each in ours], seconds),
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What was found, a network, number of images a rank, precision and kind a line."""
    table = Table(
        title=f"Training steps on several GPUs, n = {found['n']}: minimum / median / maximum",
        title_justify="left",
    )
    for name in (
        "network", "images a rank", "precision", "ranks", "exchange", "img/s",
        "of a step not hidden, ms", "one rank, img/s", "times one rank",
    ):  # fmt: skip
        table.add_column(name)
    for row in found["rows"]:
        ours = row["ours"]
        table.add_row(
            row["network"],
            str(row["batch"]),
            row["precision"],
            str(row["ranks"]),
            row["exchange"],
            three(ours["images_per_second"]),
            three([1e3 * each for each in ours["exchange_seconds"]]),
            three(row["alone"]["images_per_second"]),
            three(row["ratio"]),
        )
    return [table]
