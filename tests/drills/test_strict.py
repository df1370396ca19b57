"""--strict: the same checkpoint, bit for bit, however many ranks have made it."""

from __future__ import annotations

from pathlib import Path

import pytest
from launcher import Launch
from safetensors.numpy import load

NETWORK = """
name = "normed"
input = [1, 28, 28]
classes = 10

[[layer]]
name = "conv"
type = "convolution"
channels = 7
kernel = 5
stride = 2

[[layer]]
name = "norm"
type = "batch_norm"

[[layer]]
name = "relu"
type = "relu"

[[layer]]
name = "drop"
type = "dropout"

[[layer]]
name = "flatten"
type = "flatten"

[[layer]]
name = "fc"
type = "dense"
features = "classes"

[[layer]]
name = "loss"
type = "softmax_cross_entropy"
"""
# 50 images are 8 pieces, the last of one image: ranks have unlike numbers of them.
WORDS = ("--strict", "--data", "digits", "--batch-size", 50, "--sub-batch", 7)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "normed.toml"
    path.write_text(NETWORK)
    return path


def last(folder: Path) -> bytes:
    return sorted((folder / "checkpoints").glob("*.safetensors"))[-1].read_bytes()


def tensors(path: Path) -> dict[str, bytes]:
    """All but those that speak of the job that wrote them."""
    found = load(last(path)).items()
    return {name: values.tobytes() for name, values in found if not name.startswith("state/")}


@pytest.mark.parametrize(("update", "sizes"), [("root", (1, 2, 5)), ("replicated", (1, 3))])
def test_any_number_of_ranks_makes_the_same_tensors(
    launch: Launch, tmp_path: Path, network: Path, update: str, sizes: tuple[int, ...]
) -> None:
    found = []
    for ranks in sizes:
        out = tmp_path / f"of-{ranks}"
        launch.trains(network, *WORDS, "--update", update, "--steps", 6, ranks=ranks, out=out)
        found.append(tensors(out))
    names = found[0].keys()
    assert {"norm.running_var", "momentum/fc.weight"} <= names
    for other in found[1:]:
        assert [name for name in names if other[name] != found[0][name]] == []


def test_another_number_of_ranks_goes_on_to_the_same_tensors(
    launch: Launch, tmp_path: Path, network: Path
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    launch.trains(network, *WORDS, "--steps", 6, ranks=2, out=whole)
    launch.trains(network, *WORDS, "--steps", 3, ranks=3, out=halves)
    launch.trains(network, *WORDS, "--steps", 6, "--resume", ranks=1, out=halves)
    assert tensors(whole) == tensors(halves)


def test_what_cannot_be_strict_is_refused(launch: Launch, tmp_path: Path) -> None:
    words = ("lenet", "--strict", "--steps", 1)
    ended = launch(*words, "--exchange", "dynamic8", ranks=2, out=tmp_path / "coded")
    launch.ends_with(ended, 2)
    assert "--strict: expected --exchange exact or auto, got dynamic8" in ended.sentence()
    ended = launch(*words, "--sub-batch", 40, ranks=3, out=tmp_path / "few")
    launch.ends_with(ended, 2)
    assert "in pieces of 40 images is too few pieces for 3 ranks" in ended.sentence()
