"""What tests of several rooms share: the devices that they run on."""

from __future__ import annotations

import pytest

from mpitrain.runtime.device import Device, open_device


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--devices",
        default="intel,pocl,pocl as a gpu",
        help="OpenCL devices to test on, such as nvidia",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        names = metafunc.config.getoption("--devices").split(",")
        metafunc.parametrize("device", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Device:
    """Both runtimes for CPUs, and the kernels for GPUs (groups, barriers, float4) on one of them;
    or what --devices names."""
    found = open_device(request.param.split()[0])
    if request.param.endswith("as a gpu"):
        found.kind, found.wide, found.group = "gpu", 4, 16
    return found
