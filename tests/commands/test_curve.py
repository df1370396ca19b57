"""Points from logs, and the table, the CSV and the picture made of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpitrain.commands import curve
from mpitrain.commands.curve import Point, core_note, csv_text, point, table
from mpitrain.job.errors import RunError


def events(
    ranks: int, totals: Sequence[float], device: str = "CPU (Intel), cores 0,1"
) -> list[dict[str, Any]]:
    """A log: a first step of 9 s, which compiles, and steps of so many seconds, of which a quarter
    is exchange."""
    start = {"event": "start", "ranks": ranks, "batch_size": 120, "devices": [device] * ranks}
    start |= {
        "exchange": "float32",
        "update": "root",
        "versions": {"mpi": "MPICH 5 (/lib/libmpi.so)"},
    }
    steps = [
        {
            "event": "step",
            "seconds": {
                "total": each,
                "compute": 0.75 * each,
                "exchange": 0.25 * each,
                "wait": 0.0,
            },
            "bytes_sent": 1_000_000 * (ranks - 1),
        }
        for each in (9.0, *totals)
    ]
    return [start, *steps, {"event": "end", "exit": 0}]


def at(ranks: int, seconds: float, cores: int = 0) -> Point:
    parts = {"compute": 0.75 * seconds, "exchange": 0.25 * seconds, "wait": 0.0}
    return Point(
        ranks,
        120,
        40,
        seconds,
        0.9 * seconds,
        1.5 * seconds,
        parts,
        1e6,
        cores,
        "CPU; MPICH; exchange float32",
    )


def test_a_point_is_the_median_of_all_steps_but_the_first() -> None:
    found = point(events(2, [0.2, 0.4, 0.3]), ["a/0", "b/1"])
    assert (found.ranks, found.steps, found.seconds, found.fastest, found.slowest) == (
        2,
        3,
        0.3,
        0.2,
        0.4,
    )
    assert found.images_per_second == pytest.approx(400)
    assert found.exchange_share == pytest.approx(0.25)
    assert found.bytes_sent == 1_000_000


def test_of_a_run_that_was_started_again_the_longest_start_counts() -> None:
    once, again = events(2, [7.0])[:-1], events(2, [0.2, 0.4, 0.3])
    for log in (once + again, again + once):
        assert point(log, ["a/0", "b/1"]) == point(again, ["a/0", "b/1"])


def test_one_step_is_none_to_measure() -> None:
    with pytest.raises(RunError, match="with 1 rank: no step to measure"):
        point(events(1, []), ["a/0"])


@pytest.mark.parametrize(
    ("hosts", "name", "cores"),
    [
        (["a/0", "a/0"], "CPU (Intel), cores 0,1", 2),
        (["a/0", "a/1"], "CPU (Intel), cores 0,1", 2),  # virtual nodes of one host
        (["a/0", "b/1"], "CPU (Intel), cores 0,1", 4),
        (["a/0", "b/1"], "H100 (NVIDIA CUDA)", 0),
    ],
)
def test_cores_of_one_host_are_counted_once(hosts: list[str], name: str, cores: int) -> None:
    assert point(events(2, [0.1], name), hosts).cores == cores


def test_speed_up_is_against_the_fewest_ranks_and_efficiency_against_their_growth() -> None:
    two, eight = at(2, 0.8), at(8, 0.4)
    assert eight.speed_up(two) == pytest.approx(2)
    assert eight.efficiency(two) == pytest.approx(0.5)
    assert "speed-up: against 2 ranks" in table("resnet18", [two, eight])
    assert "against" not in table("resnet18", [at(1, 1.0), two])


def test_the_models_give_the_papers_figures() -> None:
    assert curve.star_seconds(8) == pytest.approx(32)
    assert curve.star_seconds(1) / curve.star_seconds(4) == pytest.approx(2.9, abs=0.05)
    assert curve.sharded_seconds(8) == pytest.approx(14, abs=0.5)
    assert curve.sharded_seconds(1) == curve.COMPUTE
    assert curve.star_seconds(16, slowdown=10) == pytest.approx(100)
    assert curve.star_seconds(64, slowdown=10, compression=10) == pytest.approx(31)
    assert curve.sharded_seconds(16, slowdown=10) == pytest.approx(62, abs=0.5)


def test_the_table_has_lenet_beside_the_papers_nearly_linear_curve() -> None:
    text = table("lenet", [at(1, 0.06, 1), at(2, 0.04, 2), at(4, 0.03, 4)])
    assert text == (
        "lenet, batch 120 over all ranks, 40 steps a run after the first: median seconds a step, "
        "and the bytes that rank 0 sends\n"
        "ranks  cores  s/step  fastest  slowest  images/s  speed-up  efficiency  exchange  MB "
        "sent/step  paper\n"
        "-----  -----  ------  -------  -------  --------  --------  ----------  --------  "
        "------------  -----\n"
        "    1      1  0.0600   0.0540   0.0900   2,000.0      1.00        100%       25%          "
        "1.00     ~1\n"
        "    2      2  0.0400   0.0360   0.0600   3,000.0      1.50         75%       25%          "
        "1.00     ~2\n"
        "    4      4  0.0300   0.0270   0.0450   4,000.0      2.00         50%       25%          "
        "1.00     ~4\n"
        "here, with 4 ranks: CPU; MPICH; exchange float32\n"
        "paper (arXiv 1702.01846), Figure 6 left: LeNet, batch 120, float32, 1 to n tablets that "
        "run a browser: nearly linear\n"
    )


def test_the_table_has_vgg16_beside_the_papers_points_and_both_models() -> None:
    lines = table("vgg16", [at(1, 40.0), at(4, 12.0), at(8, 7.0)]).splitlines()
    assert lines[1].split()[-3:] == ["paper", "star", "sharded"]
    assert [line.split()[-3:] for line in lines[3:6]] == [
        ["-", "1.0", "1.0"],
        ["2.8", "2.9", "3.7"],
        ["3.3", "3.1", "6.8"],
    ]
    assert any("NVIDIA K80" in line and line.startswith("paper (arXiv") for line in lines)


def test_the_csv_has_a_row_a_point_and_says_nothing_where_it_knows_nothing() -> None:
    rows = list(csv.DictReader(csv_text("vgg16", [at(1, 40.0), at(4, 10.0)]).splitlines()))
    assert list(rows[0]) == list(curve.COLUMNS)
    assert [row["speed_up"] for row in rows] == ["1.0", "4.0"]
    assert [row["paper_speed_up"] for row in rows] == ["", "2.8"]
    assert [row["cores"] for row in rows] == ["", ""]
    other = next(csv.DictReader(csv_text("resnet18", [at(1, 4.0, 2)]).splitlines()))
    assert (other["cores"], other["paper_speed_up"], other["star_model"]) == ("2", "", "")


def test_it_is_said_when_no_speed_up_is_to_be_expected() -> None:
    same = [at(1, 1.0, 2), at(2, 1.0, 2), at(4, 1.0, 2)]
    assert core_note(same).startswith(
        "note: no speed-up is to be expected: 2 and 4 ranks share the 2 cores that 1 rank already "
        "had"
    )
    assert core_note(same) in table("lenet", same)
    assert "at most 1.5 with 2 ranks (6 cores)" in core_note([at(1, 1.0, 4), at(2, 1.0, 6)])
    assert core_note([at(1, 1.0, 2), at(2, 1.0, 4)]) == ""
    assert core_note([at(1, 1.0), at(2, 1.0)]) == ""


def test_what_is_drawn_needs_no_screen_and_no_second_point(tmp_path: Path) -> None:
    for network in ("lenet", "vgg16", "resnet18"):
        curve.draw(network, [replace(at(2, 0.5), cores=2)], tmp_path / f"{network}.png")
        assert (tmp_path / f"{network}.png").stat().st_size > 10_000
