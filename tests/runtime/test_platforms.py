"""Cores are shared fairly, devices are found, and what is not there is said."""

from __future__ import annotations

from collections import Counter

import pytest

from mpitrain.report import UserError
from mpitrain.runtime import pocl
from mpitrain.runtime.device import list_devices, open_device
from mpitrain.runtime.platforms import share_of_cores


@pytest.mark.parametrize(("cores", "ranks"), [(8, 2), (8, 3), (7, 4), (2, 2), (64, 8)])
def test_ranks_divide_the_cores_of_their_host(cores: int, ranks: int) -> None:
    shares = [share_of_cores([range(cores)] * ranks, rank) for rank in range(ranks)]
    assert sorted(core for share in shares for core in share) == list(range(cores))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_ranks_than_cores_take_one_in_turn() -> None:
    shares = [share_of_cores([[3, 5]] * 5, rank) for rank in range(5)]
    assert all(len(share) == 1 for share in shares)
    assert Counter(share[0] for share in shares) == {3: 3, 5: 2}


def test_what_the_launcher_has_divided_stays() -> None:
    assert share_of_cores([[0, 1], [2, 3]], 1) == [2, 3]


def test_both_runtimes_for_cpus_are_here() -> None:
    names = {entry.platform.name for entry in list_devices()}
    assert any("Intel" in name for name in names) and any("Portable" in name for name in names)


def test_intels_runtime_is_chosen_before_pocl() -> None:
    first = next(entry for entry in list_devices() if entry.kind == "cpu")
    assert "Intel" in first.platform.name
    assert "Intel" in open_device("cpu").platform and "Portable" in open_device("pocl:0").platform


@pytest.mark.parametrize("choice", ["nvidia:9", "nothing"])
def test_a_device_that_is_not_there_is_said_with_those_that_are(choice: str) -> None:
    with pytest.raises(
        UserError, match=rf"--device {choice}: no such OpenCL device; found: .*Intel.*Portable"
    ):
        open_device(choice)


def test_an_index_that_is_none_is_said() -> None:
    with pytest.raises(UserError, match="--device pocl:7: there are only 1 such devices, counted from 0"):
        open_device("pocl:7")
    with pytest.raises(UserError, match="--device pocl:x: after the colon comes a number"):
        open_device("pocl:x")


def test_pocls_device_is_named_once() -> None:
    device = open_device("pocl")
    assert pocl.name_cpu(device.cl) is False  # opening it has seen to it
