"""How a job ends: what its log says goes before what its launcher says (a real SLURM ends jobs so
in tests/jobs)."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from mpitrain.commands import cli, requeue
from mpitrain.commands.requeue import conclude
from mpitrain.job.errors import STOPPED


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program that stands for SLURM's was asked."""
    path, asked = tmp_path / "scontrol", tmp_path / "asked"
    path.write_text(f'#!/bin/sh\necho "$@" > {asked}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setattr(requeue, "LATE", 0.0)
    return asked


def ended(folder: Path, code: int, job: str | None = "17", restarts: int = 2) -> Path:
    """A run directory whose log ends so, in that start of that job."""
    folder.mkdir()
    events = [{"event": "start"}, {"event": "end", "job": job, "restarts": restarts}]
    events[-1] |= {"exit": code, "weights_sha256": ["0" * 64] * 30_000}
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return folder


@pytest.mark.parametrize("code", [STOPPED, 1, 137])
def test_a_job_goes_back_into_the_queue_if_it_was_stopped_with_a_checkpoint(
    asked: Path, code: int
) -> None:
    assert conclude(code, None) == code
    assert (asked.read_text() if asked.exists() else "") == "requeue 17\n" * (code == STOPPED)


def test_a_refused_requeue_says_scontrols_words_and_keeps_the_code(
    asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (asked.parent / "scontrol").write_text("#!/bin/sh\necho 'is disabled' >&2; exit 1\n")
    assert conclude(STOPPED, None) == STOPPED
    assert "scontrol refuses: is disabled" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", [0, 1, 14, 137, STOPPED])
@pytest.mark.parametrize("own", [0, STOPPED])
def test_the_runs_own_end_decides(tmp_path: Path, asked: Path, launcher: int, own: int) -> None:
    """Open MPI's mpirun ends with 0 where a daemon dies with its host, and with 1 for 75."""
    assert conclude(launcher, ended(tmp_path / "run", own)) == own
    assert asked.exists() == (own == STOPPED)


@pytest.mark.parametrize(("launcher", "code"), [(0, 1), (9, 9), (86, 86)])
def test_an_end_of_an_earlier_start_or_none_is_no_end(
    tmp_path: Path, asked: Path, capsys: pytest.CaptureFixture[str], launcher: int, code: int
) -> None:
    before = ended(tmp_path / "before", STOPPED, restarts=1)
    other = ended(tmp_path / "other", 0, job="16")
    by_hand = ended(tmp_path / "by hand", 0, job=None, restarts=0)
    for folder in (before, other, by_hand):
        assert conclude(launcher, folder) == code
    cut = ended(tmp_path / "cut", 0)
    text = (cut / "log.jsonl").read_text()
    for damaged in (text[:-5], text + '{"event": "start"}\n', text + "[]\n", "", "{" * 9999):
        (cut / "log.jsonl").write_text(damaged)
        assert conclude(launcher, cut) == code
    assert conclude(launcher, tmp_path / "nowhere") == code
    assert not asked.exists()
    said = capsys.readouterr().err
    assert said.count("has no end of this run") == (9 if launcher == 0 else 0)


def test_a_scripts_further_words_are_those_of_the_training(tmp_path: Path, asked: Path) -> None:
    """The last --out counts, as for the training."""
    other = str(ended(tmp_path / "other", 0))
    words = ["137", "--out", "runs/17", "--epochs", "3", "--json", "--out", other]
    assert cli.commands.main(["requeue", *words], standalone_mode=False) == 0
