"""--config: a run once more, with what is typed before what the file says, on every rank."""

from __future__ import annotations

from pathlib import Path

from launcher import Launch


def test_a_run_is_repeated_and_changed(launch: Launch, tmp_path: Path) -> None:
    words = ("--nesterov", "--seed", 5, "--exchange", "dynamic8", "--schedule", "linear")
    first = launch.trains("lenet", "--steps", 4, *words, ranks=2, out=tmp_path / "first")
    again = launch.trains("--config", tmp_path / "first", ranks=2, out=tmp_path / "again")
    assert again.weights == first.weights
    assert [step["lr"] for step in again.events("step")] == [0.01, 0.0075, 0.005, 0.0025]
    other = launch.trains(
        "lenet", "--config", tmp_path / "first" / "config.toml", "--seed", 6, "--epochs", 1,
        ranks=2, out=tmp_path / "other",
    )  # fmt: skip
    config = (tmp_path / "other" / "config.toml").read_text()
    assert "seed = 6" in config and "nesterov = true" in config and "steps =" not in config
    assert other.end["step"] == 22


def test_a_wrong_file_is_refused_on_every_rank(launch: Launch, tmp_path: Path) -> None:
    path, good = tmp_path / "mine.toml", tmp_path / "good.toml"
    path.write_text("[run]\nmomentun = 0.5\n")
    good.write_text("[run]\nmomentum = 0.5\n")
    ended = launch("lenet", "--config", path, ranks=2)
    launch.ends_with(ended, 2)
    assert ended.out == "" and "did you mean momentum?" in ended.sentence()
    for each, words in [
        ((["lenet", "--config", path], ["lenet"]), "rank 0: --config"),
        ((["lenet", "--config", good], ["lenet"]), "--momentum is 0.5 on rank 0, 0.9 on rank 1"),
        ((["--config", good], ["--config", good]), "Missing argument 'NETWORK'"),
    ]:
        ended = launch(each=each)
        launch.ends_with(ended, 2)
        assert words in ended.sentence()
