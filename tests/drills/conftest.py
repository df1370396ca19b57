"""What the drills share: the launcher, runs that several of them look at, and a network and data
that train in no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from launcher import Ended, Launch
from PIL import Image

from mpitrain.data.digits import DIGITS

SMALL = """
name = "small"
input = [1, 12, 12]
classes = 4
batch_size = 16

[[layer]]
name = "conv"
type = "convolution"
channels = 8
kernel = 3
bias = false

[[layer]]
name = "norm"
type = "batch_norm"

[[layer]]
name = "relu"
type = "relu"

[[layer]]
name = "pool"
type = "max_pool"
kernel = 2

[[layer]]
name = "flat"
type = "flatten"

[[layer]]
name = "fc1"
type = "dense"
features = 40

[[layer]]
name = "relu1"
type = "relu"

[[layer]]
name = "drop"
type = "dropout"

[[layer]]
name = "fc2"
type = "dense"
features = "classes"

[[layer]]
name = "loss"
type = "softmax_cross_entropy"
"""
"""A network that trains in no time and has what a checkpoint must not forget: batch norm and
dropout."""


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    return Launch(lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def digits_run(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """LeNet on the digits with two ranks, as the README's first command does it."""
    return launch.trains("lenet", ranks=2, out=tmp_path_factory.mktemp("digits") / "run")


@pytest.fixture(scope="session")
def short_run(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A few steps of LeNet on one rank, with two checkpoints."""
    out = tmp_path_factory.mktemp("short") / "run"
    return launch.trains("lenet", "--steps", 4, "--checkpoint-every", 2, out=out)


@pytest.fixture(scope="session")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits 0 to 3, their middle at half the size: 12x12, 160 to train with and 40 to test."""
    with np.load(DIGITS) as digits:
        images, labels = digits["images"], digits["labels"]
    few = labels < 4
    images, labels = images[few][:200, :, 2:26:2, 2:26:2], labels[few][:200]
    path = tmp_path_factory.mktemp("small") / "small.npz"
    arrays = {"images": images[:160], "labels": labels[:160]}
    np.savez(path, **arrays, test_images=images[160:], test_labels=labels[160:])
    return path


@pytest.fixture
def pictures(small_data: Path, tmp_path: Path) -> Path:
    """Twelve of each class of the small digits as a folder of class folders."""
    root = tmp_path / "pictures"
    with np.load(small_data) as arrays:
        for split, images, labels in (
            ("train", arrays["images"], arrays["labels"]),
            ("val", arrays["test_images"], arrays["test_labels"]),
        ):
            for label in range(4):
                (root / split / str(label)).mkdir(parents=True)
                for number, image in enumerate(images[labels == label][:12]):
                    Image.fromarray(image[0]).save(root / split / str(label) / f"{number:02}.png")
    return root
