"""Runs with --dense split end where runs with whole layers end, and leave checkpoints that do not
tell the one from the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launcher import Ended, Launch
from safetensors import safe_open

WORDS = ("--data", "digits", "--batch-size", 22, "--sub-batch", 3, "--device", "cpu")
NETWORK = """
name = "three"
input = [1, 28, 28]
classes = 10
layer = [
    {name = "conv", type = "convolution", channels = 4, kernel = 5, stride = 2},
    {name = "relu", type = "relu"},
    {name = "flat", type = "flatten"},
    {name = "fc1", type = "dense", features = 101},
    {name = "relu1", type = "relu"},
    {name = "drop", type = "dropout"},
    {name = "fc2", type = "dense", features = 203},
    {name = "relu2", type = "relu"},
    {name = "fc3", type = "dense", features = "classes"},
    {name = "loss", type = "softmax_cross_entropy"},
]
"""
"""Layers of more inputs than outputs, of fewer, and with dropout; fc1 is coded under 8 bits."""


def losses(ended: Ended) -> list[float]:
    return [event["loss"] for event in ended.events("step")]


def newest(ended: Ended) -> Path:
    assert ended.folder is not None
    return max((ended.folder / "checkpoints").iterdir())


def tensors(ended: Ended) -> dict[str, Any]:
    with safe_open(newest(ended), framework="numpy") as file:
        names = [name for name in file.keys() if "sha256" not in name]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


@pytest.fixture
def train(launch: Launch, tmp_path: Path) -> Callable[..., Ended]:
    """train(out, ranks, dense, ...): a run of up to 8 steps."""
    (tmp_path / "three.toml").write_text(NETWORK)

    def run(out: str, ranks: int, dense: str, *more: object, steps: int = 8) -> Ended:
        words = (tmp_path / "three.toml", *WORDS, "--steps", steps, *more)
        return launch.trains(*words, "--dense", dense, ranks=ranks, out=tmp_path / out)

    return run


def test_a_split_run_has_the_losses_and_the_tensors_of_a_whole_one(
    train: Callable[..., Ended],
) -> None:
    whole, split = (
        train(dense[:5], 5, dense, "--exchange", "float32", "--inject", "delay=0.001")
        for dense in ("whole", "split:1")
    )
    assert whole.weights and split.weights  # one hash each over ranks
    np.testing.assert_allclose(losses(split), losses(whole), rtol=2e-5)
    score, wanted = split.events("evaluate")[-1], whole.events("evaluate")[-1]
    assert score["top1"] == wanted["top1"]
    assert score["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    found, expected = tensors(split), tensors(whole)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-6, err_msg=name)
    sent, instead = (run.events("step")[-1]["bytes_sent"] for run in (split, whole))
    assert sent < 0.4 * instead


def test_a_checkpoint_goes_on_with_other_ranks_and_with_whole_layers(
    train: Callable[..., Ended],
) -> None:
    """Also under 8 bits, whose exact weights on rank 0 lie otherwise where layers are split."""
    exchange = ("--exchange", "dynamic8", "--checkpoint-every", 4)
    split, whole = train("split", 3, "split:1", *exchange), train("whole", 2, "whole", *exchange)

    def go_on(name: str, origin: Ended, ranks: int, dense: str) -> Ended:
        assert origin.folder is not None
        file = origin.folder / "checkpoints" / "step-00000004.safetensors"
        ended = train(name, ranks, dense, *exchange, "--resume", file)
        tolerance = 2e-3 if dense == "whole" or origin is whole else 2e-5
        np.testing.assert_allclose(losses(ended), losses(origin)[4:], tolerance, err_msg=name)
        return ended

    assert go_on("again", split, 3, "split:1").weights == split.weights
    assert "stays out" not in go_on("fewer", split, 2, "split:1").out
    ended = go_on("on", split, 2, "whole")
    assert "stays out: --dense splits other layers here" in ended.out and ended.weights
    ended = go_on("back", whole, 3, "split:1")
    assert "stays out: --dense splits other layers here" in ended.out and ended.weights


def test_coded_activations_give_one_hash_and_go_on_with_other_ranks(
    train: Callable[..., Ended],
) -> None:
    """To the bit with as many ranks, near it with others."""
    words = ("--exchange", "float32", "--checkpoint-every", 4)
    coded = (*words, "--activations", "dynamic8")
    exact, first = train("exact", 3, "split:1", *words), train("coded", 3, "split:1", *coded)
    assert first.weights != exact.weights
    np.testing.assert_allclose(losses(first), losses(exact), rtol=0.02)
    sent, instead = (run.events("step")[-1]["bytes_sent"] for run in (first, exact))
    assert sent < 0.6 * instead  # biases and the convolution travel as before
    assert first.folder is not None
    file = first.folder / "checkpoints" / "step-00000004.safetensors"
    again = train("again", 3, "split:1", *coded, "--inject", "delay=0.001", "--resume", file)
    assert again.weights == first.weights
    fewer = train("fewer", 2, "split:1", *coded, "--resume", file)
    assert fewer.weights
    np.testing.assert_allclose(losses(fewer), losses(first)[4:], rtol=0.02)


def test_weights_of_a_file_reach_the_ranks_that_keep_them(train: Callable[..., Ended]) -> None:
    first = train("first", 2, "whole", "--exchange", "float32", steps=3)
    begun = train("begun", 3, "split:1", "--exchange", "float32", "--init", newest(first), steps=0)
    assert begun.weights == first.weights


def test_a_dead_ranks_slices_cannot_be_had_again(launch: Launch, tmp_path: Path) -> None:
    words = ("lenet", "--steps", 1, "--dense", "split:1000", "--on-failure", "continue")
    ended = launch(*words, ranks=2, out=tmp_path / "run")
    launch.ends_with(ended, 2)
    assert "--dense split:1000: not together with --on-failure continue" in ended.sentence()


def test_activations_are_coded_only_where_layers_are_split(launch: Launch, tmp_path: Path) -> None:
    words = ("lenet", "--steps", 1, "--activations", "dynamic8")
    ended = launch(*words, ranks=2, out=tmp_path / "run")
    launch.ends_with(ended, 2)
    assert "--activations dynamic8: expected --dense split, got auto" in ended.sentence()


def test_a_rank_that_dies_before_a_split_layer_ends_the_run(launch: Launch, tmp_path: Path) -> None:
    """The others wait for its activations."""
    fault = ("--inject", "kind=kill,rank=1,step=3,phase=forward")
    ended = launch(
        "lenet", "--steps", 9, "--dense", "split:1000", *fault, ranks=3, out=tmp_path / "run"
    )
    assert ended.code != 0
    assert not ended.events("end")
    assert "died without a word" in ended.err
