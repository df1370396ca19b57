"""What tests of several rooms share: the devices that they run on."""

from __future__ import annotations

import pytest

from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--devices",
        default="intel,pocl,pocl as a gpu",
        help="OpenCL devices to test on, such as nvidia",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Drivers chat there, on threads that compile beside each other. Not in pyproject.toml, which
    # would import pyopencl before the package has set it up.
    config.addinivalue_line("filterwarnings", "ignore::pyopencl.CompilerWarning")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        names = metafunc.config.getoption("--devices").split(",")
        metafunc.parametrize("device", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Engine:
    """Both runtimes for CPUs, and the kernels for GPUs (groups, barriers, float4) on one of them;
    or what --devices names."""
    name, _, role = request.param.partition(" as a ")
    return open_device(name, engine=role or "auto")
