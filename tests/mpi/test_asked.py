"""Ranks that were not asked for the same all say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from mpitrain.job.errors import UserError
from mpitrain.mpi.agree import Agree
from mpitrain.mpi.asked import compare


class Told:
    """An `Agree` that knows what the ranks after this one have to say."""

    def __init__(self, others: Sequence[tuple[Mapping[str, str], str]]) -> None:
        self._others = others

    def gather_facts(self, fact: Any) -> list[Any]:
        return [fact, *([dict(asked), refused] for asked, refused in self._others)]


def words(mine: Mapping[str, object], *others: Mapping[str, str], refused: str = "") -> str:
    told = cast(Agree, Told([(other, refused) for other in others]))
    with pytest.raises(UserError) as error:
        compare(told, mine)
    assert error.value.agreed
    return str(error.value)


def test_the_same_passes() -> None:
    nan = {"command": "train", "--lr": float("nan"), "--out": None}
    compare(
        cast(Agree, Told([({"command": "train", "--lr": "nan", "--out": "not given"}, "")])), nan
    )


def test_each_option_that_differs_is_named_with_the_first_rank_that_differs() -> None:
    said = words(
        {"--lr": 0.1, "--seed": 1}, {"--lr": "0.1", "--seed": "1"}, {"--lr": "0.2", "--seed": "1"}
    )
    assert said == "ranks were asked for different things: --lr is 0.1 on rank 0, 0.2 on rank 2"


def test_a_sentence_names_three_and_counts_the_rest() -> None:
    mine = {f"--{name}": 1 for name in "abcde"}
    said = words(mine, dict.fromkeys(mine, "2"))
    assert said.endswith("--c is 1 on rank 0, 2 on rank 1; and 2 more")


def test_another_command_has_other_options_which_are_not_named() -> None:
    said = words({"command": "train", "--lr": 1}, {"command": "evaluate", "--top": "5"})
    assert said.endswith(": command is train on rank 0, evaluate on rank 1")


def test_a_long_value_and_one_of_several_lines_stay_short_and_on_one_line() -> None:
    said = words({"--data": "a\nb"}, {"--data": "x" * 60 + "... (100 characters)"})
    assert "--data is a\\nb on rank 0" in said
    assert "\n" not in said


def test_one_that_refuses_ends_all_in_its_words() -> None:
    assert words({"--lr": 1}, {"--lr": "1"}, refused="No such option") == "rank 1: No such option"
