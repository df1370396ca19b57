"""Whether all ranks of a job were asked for the same: `mpirun -n 1 mpitrain A : -n 1 mpitrain B`
starts ranks that are not."""

from __future__ import annotations

from collections.abc import Mapping

from mpitrain.job.errors import UserError, agreed
from mpitrain.mpi.agree import Agree

FEW = 3
"""Differences in a sentence."""
DECISIVE = ("command", "version")
"""Where these differ, other differences follow from it."""
LONGEST = 60
"""Characters of a value in a sentence."""


def compare(agree: Agree, asked: Mapping[str, object], refused: str = "") -> None:
    """The first words between ranks: what each was asked for. Collective.

    asked: command, options and version, by the names under which they are typed. refused: why this
    rank cannot do it. Raises UserError, on every rank alike, unless all were asked for the same and
    none refuses.
    """
    mine = {name: _text(value) for name, value in asked.items()}
    everyone = agree.gather_facts([mine, refused])
    refusals = [(rank, words) for rank, (_, words) in enumerate(everyone) if words]
    if refusals:
        rank, words = refusals[0]
        alike = all(each == everyone[0] for each in everyone)
        raise agreed(UserError(words if alike else f"rank {rank}: {words}"))
    differences = _differences([found for found, _ in everyone])
    if differences:
        more = len(differences) - FEW
        raise agreed(
            UserError(
                f"ranks were asked for different things: {'; '.join(differences[:FEW])}"
                + (f"; and {more} more" if more > 0 else "")
            )
        )


def _differences(everyone: list[dict[str, str]]) -> list[str]:
    """What ranks were not asked alike, in words, with the first rank that differs from rank 0."""
    if len({tuple(found.get(name) for name in DECISIVE) for found in everyone}) > 1:
        everyone = [{name: found.get(name, "nothing") for name in DECISIVE} for found in everyone]
    names = list(dict.fromkeys(name for found in everyone for name in found))
    return [
        f"{name} is {first} on rank 0, {value} on rank {rank}"
        for name in names
        for first, value, rank in _first_other([found.get(name, "nothing") for found in everyone])
    ]


def _first_other(values: list[str]) -> list[tuple[str, str, int]]:
    """Rank 0's value, and the first other one with its rank; nothing where all are alike."""
    return [(values[0], value, rank) for rank, value in enumerate(values) if value != values[0]][:1]


def _text(value: object) -> str:
    """A value as it may be typed, on one line."""
    if value is None or value == "":
        return "not given"
    text = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    text = text.encode("unicode_escape").decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
