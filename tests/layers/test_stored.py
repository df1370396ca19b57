"""Layers whose values lie in memory as tensor cores read them compute what they do on float32,
rounded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.engine.gpu import FORMAT
from mpitrain.engine.nvidia import STORED
from mpitrain.engine.registry import open_device
from mpitrain.layers import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    Flatten,
    MaxPool,
    Relu,
    Relu6,
)
from mpitrain.layers.conv.algorithm import PASSES
from mpitrain.layers.layer import Layer, Shape
from mpitrain.layers.residual import BatchNormAdd
from mpitrain.network.fuse import rectifying

Values = NDArray[Any]
ROUNDING = {"bf16": 2.0**-8, "tf32": 2.0**-11, "high": 2.0**-16}
"""Relative, of one value, at most."""
IMAGE = (70, 6, 5)


def in_groups(layer: Layer) -> Layer:
    """By the kernels for groups, not by `implicit`, which takes any convolution."""
    assert isinstance(layer, Convolution)
    layer.forced = dict.fromkeys(PASSES, "grouped")
    return layer


LAYERS: dict[str, tuple[Callable[[], Layer], tuple[Shape, ...]]] = {
    "relu": (Relu, (IMAGE,)),
    "relu6": (Relu6, (IMAGE,)),
    "add": (Add, (IMAGE, IMAGE)),
    "add and relu": (lambda: rectifying(Add(), Relu()), (IMAGE, IMAGE)),
    "concat": (Concat, (IMAGE, (3, 6, 5), (32, 6, 5), (64, 6, 5))),
    "concat of whole blocks": (Concat, ((64, 6, 5), (128, 6, 5))),
    "dropout": (lambda: Dropout(0.4), (IMAGE,)),
    "flatten": (Flatten, (IMAGE,)),
    "flatten one pixel": (Flatten, ((64, 1, 1),)),
    "max pool": (lambda: MaxPool(3, 2, 1), (IMAGE,)),
    "average pool": (lambda: AveragePool(2, 2), (IMAGE,)),
    "batch norm": (BatchNorm, (IMAGE,)),
    "batch norm and relu": (lambda: rectifying(BatchNorm(), Relu()), (IMAGE,)),
    "batch norm and relu6": (lambda: rectifying(BatchNorm(), Relu6()), (IMAGE,)),
    "batch norm and sum": (BatchNormAdd, (IMAGE, IMAGE)),
    "batch norm, sum and relu": (lambda: rectifying(BatchNormAdd(), Relu()), (IMAGE, IMAGE)),
    "convolution in groups": (lambda: rectifying(Convolution(10, 3, groups=2), Relu()), (IMAGE,)),
    "depthwise convolution": (
        lambda: in_groups(rectifying(Convolution(70, 3, 2, 1, groups=70), Relu())),
        (IMAGE,),
    ),
    "several channels a group": (lambda: in_groups(Convolution(20, 3, groups=10)), (IMAGE,)),
    "convolution of few channels": (lambda: Convolution(70, 3, padding=1), ((3, 6, 5),)),
    "convolution to few channels": (lambda: Convolution(2, 3, padding=1), (IMAGE,)),
}


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Engine:
    """Each device with the kernels for GPUs."""
    return open_device(request.param.split()[0], engine="gpu")


@pytest.fixture(params=STORED)
def stored(request: pytest.FixtureRequest) -> str:
    """The precision whose format images are to have."""
    precision: str = request.param
    return precision


@pytest.fixture
def store(device: Engine, stored: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets images lie so from then on."""
    return lambda: monkeypatch.setattr(device, "format", STORED[stored])


def rounded(values: Values, precision: str) -> Values:
    """Along lines of channels, which are any here."""
    numbers = STORED[precision].images
    flat = np.zeros(-(-values.size // 32) * 32, np.float32)
    flat[: values.size] = values.ravel()
    return (
        numbers.unpack(numbers.pack(flat.reshape(-1, 32)))
        .ravel()[: values.size]
        .reshape(values.shape)
    )


def both_ways(bench: Callable[..., Any], name: str, precision: str) -> dict[str, Values]:
    """y, every dx and every parameter's gradient for inputs that the format holds exactly."""
    make, shapes = LAYERS[name]
    random = np.random.default_rng(0)
    trial = bench(make(), *shapes)
    layer = trial.layer
    if isinstance(layer, Convolution):
        layer.forced = layer.forced or dict.fromkeys(PASSES, "implicit")
        layer.build(trial.device, *shapes)
        trial.layer.scratch = trial.device.empty((layer.workspace(trial.capacity, *shapes),))
    x = [rounded(random.normal(size=(3, *shape)) + 0.5, precision) for shape in shapes]
    found = {"y": trial.forward(*x, seed=5)}
    dy = rounded(random.normal(size=found["y"].shape), precision)
    for number, dx in enumerate(trial.backward(dy)):
        found[f"dx{number}"] = dx
    return found | {f"d{each}": trial.get(f"d{each}") for each in layer.parameters(*shapes)}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_rounds_its_results_once(
    bench: Any, store: Callable[[], None], stored: str, name: str
) -> None:
    expected = both_ways(bench, name, stored)
    store()
    for what, result in both_ways(bench, name, stored).items():
        scale = np.abs(expected[what]).max()
        np.testing.assert_allclose(
            result, expected[what], rtol=ROUNDING[stored], atol=1e-5 * scale, err_msg=what
        )


def test_rounding_is_to_nearest_and_keeps_what_is_not_a_number(
    bench: Any, store: Callable[[], None], stored: str
) -> None:
    """One number at a time, as a row becomes an image, and in vectors, as two images are added."""
    store()
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F801000, 0x7F7FFFFF, 0x7FFFFFFF, 0x7F800000]
    values = np.array(bits, np.uint32).view(np.float32)
    trial = bench(Flatten(), (len(bits), 1, 1), images=1)
    trial.forward(np.zeros((1, len(bits), 1, 1)))
    (found,) = trial.backward(values[None])
    np.testing.assert_array_equal(found.ravel(), rounded(values, stored))
    assert not np.isfinite(found.ravel()[4:]).any() and np.isnan(found.ravel()[5])
    whole = rounded(np.random.default_rng(0).normal(size=(2, 1, 8, 3, 3)), stored)
    whole[:, 0, 0, 0, 0] = np.nan
    trial = bench(Add(), (8, 3, 3), (8, 3, 3), images=1)
    np.testing.assert_array_equal(trial.forward(*whole), rounded(whole[0] + whole[1], stored))


@pytest.mark.parametrize("stored", STORED)
def test_a_value_of_one_pixel_is_converted_where_it_becomes_a_row(stored: str) -> None:
    assert not Flatten().shares_memory(STORED[stored], (64, 1, 1))
    assert Flatten().shares_memory(FORMAT, (64, 1, 1))
