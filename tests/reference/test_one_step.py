"""One step from given weights equals PyTorch's in float64, every parameter's gradient within
1e-4."""

from __future__ import annotations

import compare
import pytest
import tensor_cores
from gradients import mpitrain_gradients

from mpitrain.engine.engine import Engine
from mpitrain.layers.conv.precision import use

LIMIT = 1e-4
PRECISE = {"float32": 2e-5, "high": 4e-2, "tf32": 4e-1, "bf16": 0.8}
"""Of any gradient on a GPU in each precision. The inputs are chosen so that float32's rounding
carries no value across a ReLU or a pool's maximum; that of the other formats does, and then whole
gradients differ: PyTorch's own TF32 is off by up to 0.14, its autocast to bfloat16 by 0.51."""


SMALL, LARGE = ["lenet", "mobilenetv2"], ["vgg11", "resnet18", "alexnet", "densenet121"]


@pytest.mark.parametrize("device_name", ["intel", "pocl"])
@pytest.mark.parametrize("network", LARGE)
def test_one_step_is_pytorchs(network: str, device_name: str) -> None:
    reference = compare.reference(network)
    loss, found = mpitrain_gradients(
        network, reference.images(), reference.labels(), reference.weights(), device_name
    )
    assert loss == pytest.approx(reference.loss, rel=1e-5)
    assert set(found) == set(reference.gradients)
    name, error = reference.worst_error(found)
    assert error < LIMIT, f"{network}: {name} is off by {error:.1e}"


@pytest.mark.parametrize("network", SMALL)
def test_one_step_of_small_ones_is_pytorchs_on_every_kind_of_device(
    device: Engine, network: str
) -> None:
    """The kernels for GPUs, too: tests/conftest.py runs them on a CPU, or --devices names a GPU."""
    reference = compare.reference(network)
    given = reference.images(), reference.labels(), reference.weights()
    loss, found = mpitrain_gradients(network, *given, device)
    assert loss == pytest.approx(reference.loss, rel=1e-5)
    assert set(found) == set(reference.gradients)
    name, error = reference.worst_error(found)
    assert error < LIMIT, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("precision", PRECISE)
@pytest.mark.parametrize("network", ["lenet", "vgg11", "resnet18"])
def test_one_step_in_every_precision(device: Engine, network: str, precision: str) -> None:
    """float32 on any GPU, the others on tensor cores; the tests above compare CPUs."""
    if not (device.kind == "gpu" and precision == "float32"):
        tensor_cores.need(device)
    before = device.precision, device.format
    assert use(device, precision) is None
    try:
        reference = compare.reference(network)
        given = reference.images(), reference.labels(), reference.weights()
        _, found = mpitrain_gradients(network, *given, device)
    finally:
        device.precision, device.format = before
    name, error = reference.worst_error(found)
    print(f"{network} in {precision}: {name} is off by {error:.1e}")
    assert error < PRECISE[precision], f"{network} in {precision}: {name} is off by {error:.1e}"


@pytest.mark.parametrize("network", ["lenet", "vgg11"])
def test_sub_batches_add_up_to_pytorchs(network: str) -> None:
    reference = compare.reference(network)
    given = reference.images(), reference.labels(), reference.weights()
    loss, found = mpitrain_gradients(network, *given, sub_batch=3)
    assert loss == pytest.approx(reference.loss, rel=1e-5)
    assert reference.worst_error(found)[1] < LIMIT
