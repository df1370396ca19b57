"""--config: a run once more, with what is typed before what the file says, on every rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from launcher import Launch
from safetensors.numpy import load_file


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


def test_a_deeper_vgg_begins_with_a_trained_one(launch: Launch, tmp_path: Path) -> None:
    """As the paper's VGG16 did: convolutions by their place in a stage, dense layers by name."""
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "few.npz", images=images, labels=np.arange(4) % 2)
    words = ("--data", tmp_path / "few.npz", "--batch-size", 2, "--steps", 0)
    launch.trains("vgg11", *words, out=tmp_path / "vgg11")
    file = "checkpoints/step-00000000.safetensors"
    more = ("--init", tmp_path / "vgg11" / file, "--init-partial", "--seed", 1)
    ended = launch.trains("vgg13", *words, *more, out=tmp_path / "vgg13")
    assert (
        "22 of 26 tensors taken as vgg11 has them, convolutions by their place in a stage; drawn "
        "anew: features.2.weight is not in it" in ended.out
    )
    old, new = (load_file(tmp_path / name / file) for name in ("vgg11", "vgg13"))
    for mine, its in [("features.20", "features.16"), ("features.22", "features.18")]:
        np.testing.assert_array_equal(new[f"{mine}.weight"], old[f"{its}.weight"])
    np.testing.assert_array_equal(new["classifier.3.weight"], old["classifier.3.weight"])
