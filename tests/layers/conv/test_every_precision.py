"""A convolution's three passes in the formats that tensor cores read, by every algorithm that takes
images so.

Whole numbers as data make sums exact, so a result is the sum in float64, rounded once to the
format, bit for bit. Tests of tensor cores need an NVIDIA GPU (--devices nvidia). The other
algorithms, which compute what tensor cores cannot, run on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
import pytest
import tensor_cores
from blocks import from_blocks, to_blocks
from numpy.typing import NDArray
from test_convolution import CASES, reference

from mpitrain.engine.gpu import FORMAT
from mpitrain.engine.nvidia import STORED, Nvidia
from mpitrain.layers import Convolution, Relu
from mpitrain.layers.conv.algorithm import PASSES, PassName
from mpitrain.layers.conv.choice import candidates
from mpitrain.layers.conv.tensor import supports
from mpitrain.network.fuse import rectifying

Values = NDArray[Any]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Nvidia:
    return tensor_cores.open_nvidia(request.param)


@pytest.fixture(params=STORED)
def precise(request: pytest.FixtureRequest, device: Nvidia) -> Iterator[Nvidia]:
    """The device in a precision, with images stored as for it."""
    device.precision, device.format = request.param, STORED[request.param]
    yield device
    device.precision, device.wgmma, device.format = "float32", False, FORMAT


def algorithms(device: Nvidia, layer: Convolution, shape: tuple[int, ...]) -> list[dict[str, str]]:
    """For each algorithm, what to force: itself in the passes that it can compute, and in others
    the one that can compute any."""
    by_pass: dict[PassName, list[str]] = {
        what: list(candidates(device, layer.geometry(shape), what)) for what in PASSES
    }
    names = dict.fromkeys(name for each in by_pass.values() for name in each)
    return [
        {what: name if name in each else each[-1] for what, each in by_pass.items()}
        for name in names
    ]


def suits(case: Any) -> bool:
    """Whether tensor cores can compute any pass."""
    _, channels_in, h, w, *layer = case
    return supports(Convolution(*layer).geometry((channels_in, h, w)), to_input=False)


def rounded(device: Nvidia, values: Values) -> Values:
    """As images (N, C, H, W) come back that are stored on the device."""
    numbers = device.format.numbers(values.shape[1:])
    laid = to_blocks(values.astype(np.float32), device.format)
    return from_blocks(numbers.unpack(numbers.pack(laid)), values.shape[1])


def check(
    bench: Callable[..., Any], device: Nvidia, case: Any, rectify: bool, tensor: bool
) -> None:
    """tensor: by tensor cores; else by all other algorithms."""
    images, channels_in, h, w, channels, kernel, stride, padding, groups = case
    shape, random = (channels_in, h, w), np.random.default_rng(0)

    def whole(*extents: int) -> Values:
        return random.integers(-3, 4, extents).astype(np.float32)

    layer = Convolution(channels, kernel, stride, padding, groups)
    x, dy = whole(images, *shape), whole(images, *layer.output_shape(shape))
    weight, bias = whole(*layer.parameters(shape)["weight"].shape), whole(channels)
    y = reference(case, x, weight, dy)[0] + bias[:, None, None]
    gated = dy * (y > 0) if rectify else dy
    _, dx, dweight = reference(case, x, weight, gated)
    wanted = {
        "y": rounded(device, np.maximum(y, 0) if rectify else y),
        "dx": rounded(device, dx),
        "dweight": 2 * dweight,
        "dbias": 2 * gated.sum(axis=(0, 2, 3)),
    }
    names = [
        forced
        for forced in algorithms(device, layer, shape)
        if ("tensor" in forced.values()) == tensor
    ]
    assert names
    for forced in names:
        layer.forced = forced
        trial = bench(rectifying(layer, Relu()) if rectify else copy(layer), shape, images=images)
        trial.set("weight", weight)
        trial.set("bias", bias)
        found = {"y": trial.forward(x)}
        (found["dx"],) = trial.backward(dy)
        trial.backward(dy, accumulate=True)
        found |= {name: trial.get(name) for name in ("dweight", "dbias")}
        for what, values in wanted.items():
            np.testing.assert_array_equal(found[what], values, f"{what} by {forced}")


BY_OTHERS = [
    (CASES[1], True),  # few channels
    (CASES[9], False),
    (CASES[18], True),
    (CASES[26], False),  # in groups
]
BY_TENSOR_CORES = [(case, rectify) for case in CASES if suits(case) for rectify in (False, True)]


@pytest.mark.parametrize(("case", "rectify"), BY_OTHERS, ids=str)
def test_sums_by_other_algorithms_are_rounded_once(
    bench: Callable[..., Any], precise: Nvidia, case: Any, rectify: bool
) -> None:
    check(bench, precise, case, rectify, tensor=False)


@pytest.mark.parametrize(("case", "rectify"), BY_TENSOR_CORES, ids=str)
def test_sums_by_tensor_cores_are_rounded_once(
    bench: Callable[..., Any], precise: Nvidia, case: Any, rectify: bool
) -> None:
    tensor_cores.need(precise)
    for hopper in precise.instructions:
        precise.wgmma = hopper
        check(bench, precise, case, rectify, tensor=True)
