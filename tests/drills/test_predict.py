"""predict takes what a user has at hand: a run directory, folders of images, weights of others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from launcher import Ended, Launch
from PIL import Image
from safetensors.numpy import load_file, save_file


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two images, one of them in a folder below, and one file that is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in ("a.png", "more/b.png"):
        Image.fromarray(draw.integers(0, 256, (28, 28)).astype(np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image, and not taken for one")
    return folder


def test_a_folder_is_its_images_and_a_run_its_newest_checkpoint(
    launch: Launch, short_run: Ended, pictures: Path
) -> None:
    """Under mpirun, where each rank used to print them all."""
    assert short_run.folder
    ended = launch("predict", short_run.folder, pictures, "--json", ranks=2)
    assert (ended.code, ended.sentences) == (0, []), ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["image"] for each in found] == [f"{pictures}/a.png", f"{pictures}/more/b.png"]


def test_one_bad_file_among_many_is_told_and_the_others_go_on(
    launch: Launch, short_run: Ended, pictures: Path
) -> None:
    (pictures / "c.png").write_text("no image")
    ended = launch("predict", short_run.folder, pictures)
    assert ended.code == 1
    assert ended.sentence().startswith(f"mpitrain: {pictures}/c.png: cannot be decoded")
    assert [line.partition(": ")[0] for line in ended.out.splitlines()] == [
        f"{pictures}/a.png",
        f"{pictures}/more/b.png",
    ]


@pytest.mark.parametrize(
    ("checkpoint", "image", "words"),
    [
        ("run", "missing.png", "missing.png: there is no such file or folder"),
        ("run", "empty", "empty: there are no images in this folder"),
        ("empty", "pictures", "there is no checkpoint in"),
    ],
)
def test_nothing_to_look_at(
    launch: Launch, short_run: Ended, pictures: Path, checkpoint: str, image: str, words: str
) -> None:
    (pictures.parent / "empty").mkdir()
    place = short_run.folder if checkpoint == "run" else pictures.parent / checkpoint
    ended = launch("predict", place, pictures.parent / image)
    assert ended.code == 2
    assert words in ended.sentence()


def test_weights_alone_need_the_networks_name(
    launch: Launch, short_run: Ended, pictures: Path, tmp_path: Path
) -> None:
    """Seven classes, which only the file knows of."""
    assert short_run.folder
    *_, newest = sorted((short_run.folder / "checkpoints").iterdir())
    tensors = {name: each for name, each in load_file(newest).items() if "/" not in name}
    few = {name: each[:7] for name, each in tensors.items() if name.startswith("fc2.")}
    path = tmp_path / "weights.safetensors"
    save_file({f"module.{name}": each for name, each in (tensors | few).items()}, path)
    refused = launch("predict", path, pictures / "a.png")
    assert refused.code == 2 and "--network" in refused.sentence()
    ended = launch("predict", path, pictures / "a.png", "--network", "lenet", "--top", 9, "--json")
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)["classes"]) == 7


def test_relative_data_are_found_again_from_another_folder(launch: Launch, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (20, 1, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(20) % 10)
    words = ["--data", "set.npz", "--batch-size", 10, "--steps", 1, "--out", "run"]
    line = " ".join(map(str, [*launch.mpitrain, "lenet", *words]))
    trained = launch(program=["bash", "-c", f"cd {tmp_path} && {line}"])
    assert trained.code == 0, trained.err
    ended = launch("evaluate", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "(20 images)" in ended.out


def test_how_each_class_fares_is_the_same_on_any_number_of_ranks(
    launch: Launch, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    launch.trains("lenet", "--steps", 30, "--quiet", out=out)
    words = ("evaluate", out, "--per-class", "--confusion", "--batch-size", 50, "--json")
    one, two = (json.loads(launch(*words, ranks=ranks).out) for ranks in (0, 2))
    assert one["confusion"] == two["confusion"] and one["per_class"] == two["per_class"]
    matrix = np.array(one["confusion"])
    assert matrix.sum() == one["images"] == 360
    assert np.trace(matrix) / 360 == one["top1"]
    assert [each["images"] for each in one["per_class"]] == matrix.sum(axis=1).tolist()
    printed = launch("evaluate", out, "--per-class", "--confusion").out.splitlines()
    assert len(printed) == 1 + 11 + 11 and printed[1].split() == [
        "class",
        "images",
        "top-1",
        "precision",
    ]
