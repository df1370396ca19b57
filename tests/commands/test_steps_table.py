"""The table of runs has what their logs have, under names that stay."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mpitrain.commands.report import report
from mpitrain.job.errors import UserError

COLUMNS = (
    "run step epoch loss lr images images_per_second cpu_seconds bytes_sent error_bound "
    "gradient_norm sampled_bucket measured_error flushed residual_norm seconds_total "
    "seconds_compute seconds_exchange seconds_wait seconds_host seconds_data test_loss test_top1 "
    "test_top5 test_images"
)


def run(folder: Path, *events: dict[str, object]) -> Path:
    folder.mkdir()
    lines = [json.dumps({"time": 1e9, **event}) + "\n" for event in events]
    (folder / "log.jsonl").write_text("".join(lines))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        assert " ".join(table.fieldnames or ()) == COLUMNS
        return list(table)


START = {"event": "start", "step": 0}


def test_a_row_has_a_steps_numbers_and_those_of_the_test_after_it(tmp_path: Path) -> None:
    seconds = {"total": 0.123456, "compute": 0.1, "exchange": 0.02, "wait": 0.003456, "host": 1e-06}
    step = {
        "event": "step", "step": 1, "epoch": 0, "loss": 2.302585092994046, "lr": 0.01, "images": 64,
        "images_per_second": 518.4, "seconds": seconds, "cpu_seconds": 0.2, "bytes_sent": 431986,
    }  # fmt: skip
    test = {"event": "evaluate", "step": 1, "loss": 0.1, "top1": 0.9, "top5": 1.0, "images": 360}
    beyond = {"event": "evaluate", "step": 7, "loss": float("nan"), "top1": 0.5}
    folder = run(tmp_path / 'a,"b', START, step, test, beyond)
    path = report([folder], None, tmp_path / "table.csv")
    first, second = rows(path)
    assert {name: text for name, text in first.items() if text} == {
        "run": 'a,"b', "step": "1", "epoch": "0", "loss": "2.302585092994046", "lr": "0.01",
        "images": "64", "images_per_second": "518.4", "cpu_seconds": "0.2", "bytes_sent": "431986",
        "seconds_total": "0.123456", "seconds_compute": "0.1", "seconds_exchange": "0.02",
        "seconds_wait": "0.003456", "seconds_host": "1e-06", "test_loss": "0.1",
        "test_top1": "0.9", "test_top5": "1.0", "test_images": "360",
    }  # fmt: skip
    assert {name for name, text in second.items() if text} == {"run", "step", "test_top1"}


def test_steps_that_were_done_again_count_once_and_runs_follow_each_other(tmp_path: Path) -> None:
    steps = [{"event": "step", "step": number, "loss": number / 8} for number in (1, 2, 3)]
    again = {"event": "step", "step": 3, "loss": 0.5}
    runs = [
        run(tmp_path / "a", START, *steps, {**START, "step": 2}, again),
        run(tmp_path / "b", START, *steps),
        run(tmp_path / "c", START, *steps[:1]),
    ]
    found = [(row["run"], row["step"], row["loss"]) for row in rows(
        report(runs, None, tmp_path / "all.csv")
    )]  # fmt: skip
    assert found == [
        ("a", "1", "0.125"), ("a", "2", "0.25"), ("a", "3", "0.5"), ("b", "1", "0.125"),
        ("b", "2", "0.25"), ("b", "3", "0.375"), ("c", "1", "0.125"),
    ]  # fmt: skip


def test_where_it_cannot_be_written_a_sentence_says_why(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", START)
    for out, table, words in (
        (None, folder / "log.jsonl", "expected a name that ends in .csv"),
        (tmp_path / "page.html", tmp_path / "t.csv", "expected one of --out"),
        (None, tmp_path / "no" / "t.csv", "cannot be written: No such file"),
    ):
        with pytest.raises(UserError, match=words):
            report([folder], out, table)
    assert (folder / "log.jsonl").read_text()
