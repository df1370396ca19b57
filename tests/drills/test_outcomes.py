"""What comes of a run: the log, the score, and that evaluate and predict find what training
found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from launcher import Ended, Launch
from PIL import Image

from mpitrain.data.digits import DIGITS
from mpitrain.job import toml


def newest(run: Ended) -> Path:
    assert run.folder is not None
    return sorted((run.folder / "checkpoints").iterdir())[-1]


def test_lenet_reads_digits(digits_run: Ended) -> None:
    assert digits_run.events("evaluate")[-1]["top1"] >= 0.98


def test_lenet_reads_digits_with_eight_bits(launch: Launch, tmp_path: Path) -> None:
    run = launch.trains("lenet", "--exchange", "dynamic8", ranks=2, out=tmp_path / "run")
    assert run.events("evaluate")[-1]["top1"] >= 0.98
    assert all(0 < event["error_bound"] < 1 for event in run.events("step"))


def test_the_log_says_what_the_contract_promises(digits_run: Ended) -> None:
    (start,) = digits_run.events("start")
    assert start["network"] == "lenet"
    assert start["parameters"] == 431080
    assert start["ranks"] == len(start["devices"]) == 2
    assert (start["batch_size"], start["update"]) == (64, "root")
    assert start["exchange"] in ("float32", "window")  # as was measured; both are exact
    assert start["versions"]["mpitrain"]
    steps = digits_run.events("step")
    assert [event["step"] for event in steps] == list(range(1, 221))
    for event in steps:
        assert event["seconds"].keys() == {
            *("total", "compute", "exchange", "wait"),
            "host",
            "data",
        }
        assert event["cpu_seconds"] > 0
        assert {"epoch", "loss", "lr", "images", "images_per_second", "bytes_sent"} <= event.keys()
        assert event["epoch"] == (event["step"] - 1) // 22
    assert [event["step"] for event in digits_run.events("evaluate")] == list(range(22, 221, 22))
    assert [event["step"] for event in digits_run.events("checkpoint")] == list(range(22, 221, 22))
    assert digits_run.folder is not None
    assert len(list((digits_run.folder / "checkpoints").iterdir())) == 3
    config = toml.parse((digits_run.folder / "config.toml").read_text())
    assert config["run"]["batch_size"] == 64
    assert config["run"]["exchange_chosen"] == start["exchange"]
    assert "measured: float32 " in config["run"]["exchange_reason"]
    assert len(config["ranks"]["devices"]) == 2


def test_a_header_says_that_there_will_be_no_events(launch: Launch, tmp_path: Path) -> None:
    """A module that cannot be imported stands before the one that is installed."""
    (tmp_path / "tensorboardX.py").write_text("raise ImportError\n")
    places = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = launch.trains("lenet", "--steps", 1, out=tmp_path / "run", env={"PYTHONPATH": places})
    assert "no events for TensorBoard: tensorboardX is not installed" in run.out
    assert not list((tmp_path / "run").glob("events*"))


@pytest.mark.parametrize("ranks", [0, 3])
def test_evaluate_finds_what_training_found(launch: Launch, digits_run: Ended, ranks: int) -> None:
    ended = launch("evaluate", newest(digits_run), "--json", ranks=ranks)
    assert (ended.code, ended.err) == (0, "")
    found, last = json.loads(ended.out), digits_run.events("evaluate")[-1]
    assert (found["top1"], found["top5"], found["images"]) == (
        last["top1"],
        last["top5"],
        last["images"],
    )
    assert found["loss"] == pytest.approx(last["loss"], rel=1e-5)


def test_evaluate_says_so_in_words(launch: Launch, digits_run: Ended) -> None:
    ended = launch("evaluate", newest(digits_run), "--data", "digits", ranks=2)
    top1 = digits_run.events("evaluate")[-1]["top1"]
    assert f"top-1 {top1:.4f}" in ended.out
    assert len(ended.out.splitlines()) == 1


def test_predict_names_digits(launch: Launch, digits_run: Ended, tmp_path: Path) -> None:
    with np.load(DIGITS) as digits:
        images, labels = digits["test_images"][:40, 0], digits["test_labels"][:40]
    files = [tmp_path / f"{number}.png" for number in range(40)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    ended = launch("predict", newest(digits_run), *files, "--top", 3, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["image"] for each in found] == [str(file) for file in files]
    best = [each["classes"][0]["class"] for each in found]
    assert sum(name == str(label) for name, label in zip(best, labels, strict=True)) >= 38
    for each in found:
        chances = [one["probability"] for one in each["classes"]]
        assert len(chances) == 3
        assert sorted(chances, reverse=True) == chances
    ended = launch("predict", newest(digits_run), files[0])
    assert ended.out.startswith(f"{files[0]}: {best[0]} ")
    assert len(ended.out.splitlines()) == 1


def test_json_lines_are_the_log(launch: Launch, tmp_path: Path) -> None:
    run = launch.trains("lenet", "--steps", 2, "--json", ranks=2, out=tmp_path / "run")
    assert run.err == ""
    assert run.out == (tmp_path / "run" / "log.jsonl").read_text()
    assert {json.loads(line)["event"] for line in run.out.splitlines()} == {
        "start",
        "step",
        "evaluate",
        "checkpoint",
        "end",
    }


def test_quiet_says_nothing(launch: Launch, tmp_path: Path) -> None:
    run = launch.trains("lenet", "--steps", 1, "--quiet", ranks=2, out=tmp_path / "run")
    assert (run.out, run.err) == ("", "")


def test_no_steps_write_the_first_checkpoint(launch: Launch, tmp_path: Path) -> None:
    run = launch.trains("lenet", "--steps", 0, out=tmp_path / "run")
    assert run.end["step"] == 0
    again = launch.trains(
        "lenet", "--steps", 0, "--init", newest(run), "--seed", 9, out=tmp_path / "again"
    )
    assert again.weights == run.weights
    assert "8 tensors taken" in again.out


def test_pocl_trains_as_well(launch: Launch, tmp_path: Path) -> None:
    if "Portable Computing Language" not in launch("devices").out:
        pytest.skip("no PoCL")
    arguments = ("lenet", "--steps", 20, "--exchange", "dynamic8")
    run = launch.trains(*arguments, "--device", "pocl", ranks=2, out=tmp_path / "pocl")
    assert "Portable" in run.events("start")[0]["devices"][0]
    losses = [event["loss"] for event in run.events("step")]
    assert losses[-1] < 0.5 * losses[0]
    assert run.weights


def test_the_run_directory_is_named_by_network_and_time(launch: Launch, tmp_path: Path) -> None:
    program = ["sh", "-c", f'cd {tmp_path} && exec "$@"', "sh", *launch.mpitrain]
    ended = launch("lenet", "--steps", 0, program=program)
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("lenet-")


def test_devices_says_which_one_each_rank_takes(launch: Launch) -> None:
    ended = launch("devices", "--ranks", 3)
    assert (ended.code, ended.err) == (0, "")
    for rank in range(3):
        assert f"local rank {rank} of 3: " in ended.out


def test_summary_counts(launch: Launch, small_network: Path, small_data: Path) -> None:
    ended = launch("summary", "vgg16")
    assert (ended.code, ended.err) == (0, "")
    assert "138,357,544 parameters" in ended.out
    assert "bytes" in ended.out or "MiB" in ended.out
    assert (
        "small: 1x12x12 images, 4 classes"
        in launch("summary", small_network, "--data", small_data).out
    )
    said = launch("summary", "vgg-16")
    launch.ends_with(said, 2)
    assert "did you mean vgg16?" in said.sentence()


def test_a_network_printed_as_a_file_is_that_network(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "lenet.toml"
    path.write_text(launch("summary", "lenet", "--toml").out)
    runs = [
        launch.trains(name, "--steps", 2, out=tmp_path / f"{n}")
        for n, name in enumerate(("lenet", path))
    ]
    assert runs[0].weights == runs[1].weights


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("train",),
        ("evaluate",),
        ("predict",),
        ("summary",),
        ("devices",),
        ("scaling",),
        ("submit",),
        ("launcher",),
        ("curve",),
    ],
)
def test_help_tells_what_a_command_does(launch: Launch, command: tuple[str, ...]) -> None:
    ended = launch(*command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: {' '.join(('mpitrain', *command))} ")
    assert launch(*command, "-h").out == ended.out
    assert "--inject" not in ended.out


@pytest.mark.parametrize("words", ["--help", "lenet --help", "--version"])
def test_of_several_ranks_one_gives_help(launch: Launch, words: str) -> None:
    ended = launch(*words.split(), ranks=2)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == launch(*words.split()).out


def test_made_up_images_are_scored_as_they_were_trained(launch: Launch, tmp_path: Path) -> None:
    """With the seed of the training: another one would make other patterns."""
    arguments = (
        "--data",
        "synthetic:512",
        "--classes",
        10,
        "--seed",
        3,
        "--steps",
        24,
        "--evaluate-every",
        24,
    )
    run = launch.trains("lenet", *arguments, out=tmp_path / "run")
    found = json.loads(launch("evaluate", newest(run), "--json").out)
    assert found["top1"] == run.events("evaluate")[-1]["top1"]
    assert found["loss"] == pytest.approx(run.events("evaluate")[-1]["loss"], rel=1e-4)
