"""What is exported computes the same elsewhere: in onnxruntime, and read back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

import mpitrain
from mpitrain.commands.export import export
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Pass
from mpitrain.network.model import Model

EVERYTHING = """
name = "everything"
input = [3, 21, 18]
classes = 7
[[layer]]
name = "conv1"
type = "convolution"
channels = 8
kernel = [3, 5]
stride = [2, 1]
padding = [1, 2]
bias = false
[[layer]]
name = "bn1"
type = "batch_norm"
epsilon = 1e-3
[[layer]]
name = "relu1"
type = "relu"
[[layer]]
name = "conv2"
type = "convolution"
channels = 8
kernel = 3
padding = 1
groups = 4
[[layer]]
name = "add"
type = "add"
inputs = ["conv2", "relu1"]
[[layer]]
name = "scale"
type = "batch_norm"
[[layer]]
name = "relu2"
type = "relu6"
[[layer]]
name = "concat"
type = "concat"
inputs = ["relu2", "conv2", "add"]
[[layer]]
name = "depthwise"
type = "convolution"
channels = 24
kernel = 3
padding = 1
groups = 24
initial = "pytorch"
[[layer]]
name = "up"
type = "max_pool"
kernel = 3
stride = 2
ceil = true
padding = 1
[[layer]]
name = "mean"
type = "average_pool"
kernel = 3
stride = 1
padding = 1
[[layer]]
name = "mean2"
type = "average_pool"
kernel = 2
stride = 2
ceil = true
[[layer]]
name = "drop"
type = "dropout"
[[layer]]
name = "flatten"
type = "flatten"
[[layer]]
name = "fc1"
type = "dense"
features = 12
bias = false
[[layer]]
name = "bn2"
type = "batch_norm"
[[layer]]
name = "fc2"
type = "dense"
features = "classes"
[[layer]]
name = "loss"
type = "softmax_cross_entropy"
"""


@pytest.fixture
def lenet(tmp_path: Path) -> Path:
    run = mpitrain.Run("lenet", steps=12, ema=0.8, quiet=True, out=str(tmp_path / "lenet"))
    mpitrain.train(run)
    return tmp_path / "lenet"


def scores_of(model: Model, images: NDArray[Any]) -> NDArray[np.float32]:
    model.graph.load(images, np.zeros(len(images), np.int64))
    model.graph.forward(Pass(len(images), training=False))
    shape = len(images), model.network.classes
    return np.array(model.graph.scores.reshape(shape).download())


def in_onnxruntime(path: Path, images: NDArray[Any]) -> NDArray[np.float32]:
    """Scores of uint8 images."""
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["scores"], {"images": images.astype(np.float32) / 255})
    return np.asarray(found)


def assert_same(path: Path, model: Model) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (9, *model.network.input_shape), np.uint8)
    wanted, found = scores_of(model, images), in_onnxruntime(path, images)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    best = np.argsort(-wanted, axis=1)[:, :5]
    np.testing.assert_array_equal(np.argsort(-found, axis=1)[:, :5], best)
    assert np.ptp(wanted, axis=0).max() > 0.05, "the scores say something"


def test_lenet_gives_the_same_scores_in_onnxruntime(lenet: Path, tmp_path: Path) -> None:
    said = export(lenet, tmp_path / "a.onnx")
    assert said.startswith(f"{tmp_path / 'a.onnx'}: lenet, 8 tensors (moving average), 1,7")
    assert_same(tmp_path / "a.onnx", mpitrain.load(lenet, "cpu"))
    export(lenet, tmp_path / "raw.onnx", raw=True)
    assert_same(tmp_path / "raw.onnx", mpitrain.load(lenet, "cpu", averaged=False))
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "raw.onnx", mpitrain.load(lenet, "cpu"))


def test_every_layer_and_every_edge_is_the_same_there(tmp_path: Path) -> None:
    """Uneven strides, groups, shortcuts, joined channels, pools that round up, and statistics."""
    file = tmp_path / "everything.toml"
    file.write_text(EVERYTHING)
    out = tmp_path / "run"
    mpitrain.train(
        mpitrain.Run(
            str(file), steps=5, batch_size=8, lr=0.1, mean="0.4,0.5,0.6", std="0.2,0.3,0.25",
            data="synthetic:16", quiet=True, out=str(out),
        )
    )  # fmt: skip
    export(out, tmp_path / "x.onnx")
    assert_same(tmp_path / "x.onnx", mpitrain.load(out, "cpu"))


def test_safetensors_hold_the_networks_tensors_and_nothing_else(
    lenet: Path, tmp_path: Path
) -> None:
    export(lenet, tmp_path / "w.safetensors")
    tensors = load_file(tmp_path / "w.safetensors")
    model = mpitrain.load(lenet, "cpu")
    assert sorted(tensors) == sorted(model.graph.layout.slots)
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt", "network": "lenet"}
    for name, values in tensors.items():
        np.testing.assert_array_equal(
            values, model.graph.view(model.graph.weights, name).download()
        )
    again = mpitrain.load(tmp_path / "w.safetensors", "cpu", network="lenet")
    np.testing.assert_array_equal(again.graph.weights.download(), model.graph.weights.download())
    export(tmp_path / "w.safetensors", tmp_path / "b.onnx", network="lenet")
    assert_same(tmp_path / "b.onnx", again)


def test_what_cannot_be_exported(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"x\.pt: expected a name that ends in \.safetensors or"):
        export(lenet, tmp_path / "x.pt")
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(UserError, match=r"there\.onnx is there already"):
        export(lenet, tmp_path / "there.onnx")
    with pytest.raises(UserError, match="there is no folder"):
        export(lenet, tmp_path / "none" / "x.onnx")
    with pytest.raises(UserError, match="no settings of mpitrain"):
        export(lenet, tmp_path / "w.safetensors")
        export(tmp_path / "w.safetensors", tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install mpitrain\[export\]"):
        export(lenet, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_a_pool_that_counts_what_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    odd = 'name = "mean2"\ntype = "average_pool"\nkernel = 2\nstride = 2\n'
    assert odd in EVERYTHING
    file.write_text(EVERYTHING.replace(odd, odd.replace("kernel = 2", "kernel = 3\npadding = 1")))
    out = tmp_path / "run"
    mpitrain.train(
        mpitrain.Run(
            str(file), steps=0, batch_size=8, data="synthetic:16", quiet=True, out=str(out)
        )
    )
    with pytest.raises(UserError, match="mean2: an average with `ceil` that counts padding"):
        export(out, tmp_path / "x.onnx")
