"""Settings from a file: a run's own config.toml says what another run is, and wrong ones are
refused by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import mpitrain
from mpitrain.job import recipe, toml
from mpitrain.job.config import Run
from mpitrain.job.errors import UserError


def test_a_runs_own_file_says_what_it_was(tmp_path: Path) -> None:
    run = Run(
        "lenet", steps=1, lr=0.5, nesterov=True, warmup="2", keep="best,2", quiet=True, seed=7,
        trace=1, out=str(tmp_path / "run"),
    )  # fmt: skip
    mpitrain.train(run)
    for path in (tmp_path / "run", tmp_path / "run" / "config.toml"):
        found = recipe.read(path)
        again = Run(**found)
        assert (again.network, again.lr, again.nesterov, again.warmup) == ("lenet", 0.5, True, "2")
        assert (again.batch_size, again.data, again.keep, again.seed) == (64, "digits", "best,2", 7)
        assert (again.out, again.quiet, again.trace) == (None, False, None)
    written = toml.parse((tmp_path / "run" / "config.toml").read_text())
    names = {each.name for each in fields(Run)}
    assert set(written["run"]) - names == set(recipe.RECORDED), "job/recipe.py knows all of them"
    assert set(written) == set(recipe.TABLES)


def test_a_file_by_hand_may_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[run]\nout = "here"\nquiet = true\nlr = 1\nwarmup = 5\n')
    assert recipe.read(path) == {"out": "here", "quiet": True, "lr": 1, "warmup": 5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nlearning = 1", "unknown setting 'learning': "),
        ("[run]\nmomentun = 0.5", "unknown setting 'momentun': did you mean momentum?"),
        ("[rum]\nlr = 0.5", "unknown table 'rum': did you mean run?"),
        ("lr = 0.5", "unknown table 'lr': known are run, versions, ranks"),
        ("run = 3", r"expected a table \[run\]"),
        ("", r"expected a table \[run\]"),
        ("[run]\nlr = -1", "--lr -1: must be above 0.0"),
        ("[run]\nlr = '0.1'", "--lr '0.1': expected a number, got str"),
        ("[run]\nsteps = [1]", r"--steps \[1\]: expected a whole number, got list"),
        ("[run", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("#" * (2 << 20), "larger than 1 MiB"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"mine\.toml.*{words}"):
        recipe.read(path)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: there is no such file"):
        recipe.read(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"config\.toml: there is no such file"):
        recipe.read(tmp_path)
    (tmp_path / "odd").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="odd is not TOML"):
        recipe.read(tmp_path / "odd")
