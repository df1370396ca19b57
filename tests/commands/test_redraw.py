"""The curve of runs that are there already, one of which was killed while it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_curve import events

from mpitrain.commands.redraw import redraw


def write(folder: Path, ranks: int, cut: int = 0) -> None:
    run = folder / f"ranks-{ranks}"
    run.mkdir()
    found = events(ranks, [0.2, 0.2, 0.2])
    found[0]["network"] = "lenet"
    text = "".join(json.dumps(event) + "\n" for event in found)
    (run / "log.jsonl").write_text(text[: len(text) - cut])
    hosts = [f"host/{rank}" for rank in range(ranks)]
    (run / "config.toml").write_text(f"[ranks]\nhosts = {json.dumps(hosts)}\n")


def test_a_run_with_half_a_line_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2, cut=8)
    write(tmp_path, 4)
    redraw(tmp_path)
    said = capsys.readouterr().out
    assert "left out: ranks-2 (" in said
    rows = (tmp_path / "curve.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "4"]
    assert (tmp_path / "curve.png").exists()
