"""One step from given weights equals PyTorch's in float64, every parameter's gradient within
1e-4."""

from __future__ import annotations

import compare
import gradients
import pytest
from gradients import mpitrain_gradients

from mpitrain.runtime.device import Device

LIMIT = 1e-4


@pytest.mark.parametrize("device_name", ["intel", "pocl"])
@pytest.mark.parametrize("network", ["lenet", "vgg11", "resnet18"])
def test_one_step_is_pytorchs(network: str, device_name: str) -> None:
    reference = compare.reference(network)
    loss, found = mpitrain_gradients(
        network, reference.images(), reference.labels(), reference.weights(), device_name
    )
    assert loss == pytest.approx(reference.loss, rel=1e-5)
    assert set(found) == set(reference.gradients)
    name, error = reference.worst_error(found)
    assert error < LIMIT, f"{network}: {name} is off by {error:.1e}"


def test_one_step_of_lenet_is_pytorchs_on_every_kind_of_device(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels for GPUs, too: tests/conftest.py runs them on a CPU, or --devices names a GPU."""
    monkeypatch.setattr(gradients, "open_device", lambda choice: device)
    reference = compare.reference("lenet")
    given = reference.images(), reference.labels(), reference.weights()
    loss, found = mpitrain_gradients("lenet", *given)
    assert loss == pytest.approx(reference.loss, rel=1e-5)
    assert set(found) == set(reference.gradients)
    name, error = reference.worst_error(found)
    assert error < LIMIT, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("network", ["lenet", "vgg11"])
def test_sub_batches_add_up_to_pytorchs(network: str) -> None:
    reference = compare.reference(network)
    given = reference.images(), reference.labels(), reference.weights()
    loss, found = mpitrain_gradients(network, *given, sub_batch=3)
    assert loss == pytest.approx(reference.loss, rel=1e-5)
    assert reference.worst_error(found)[1] < LIMIT
