"""Tensor cores are used where a run asks for them and the device has them, and never without a word
about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import tensor_cores

from mpitrain.engine.gpu import FORMAT
from mpitrain.engine.nvidia import STORED, Nvidia
from mpitrain.engine.registry import open_device
from mpitrain.job.errors import UserError
from mpitrain.layers.conv import precision
from mpitrain.layers.conv.algorithm import PASSES
from mpitrain.layers.conv.choice import candidates, choose
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.precision import LIMITS, use
from mpitrain.layers.conv.tensor_rows import FORMATS, Format

G = Geometry(40, 6, 5, 70, 3, 3, 6, 5, (1, 1), (1, 1), 1)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Nvidia:
    return tensor_cores.open_nvidia(request.param)


@pytest.fixture
def plain(device: Nvidia) -> Iterator[Nvidia]:
    """The device, set back to float32 afterwards."""
    yield device
    device.precision, device.wgmma, device.format = "float32", False, FORMAT


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    device: Nvidia,
    capability: tuple[int, int],
    found: dict[bool, float],
) -> None:
    """Let the device have this capability and these errors, by whether Hopper's instruction
    computes."""
    monkeypatch.setattr(device, "capability", capability)
    monkeypatch.setattr(precision, "compile_all", lambda *arguments: None)

    def errors(device: Nvidia, fmt: str) -> Iterator[tuple[str, float]]:
        yield "forward by mma.sync" if not device.wgmma else "forward by wgmma", found[device.wgmma]

    monkeypatch.setattr(precision, "errors", errors)


def test_float32_asks_for_nothing(plain: Nvidia) -> None:
    assert use(plain, "float32") is None
    assert plain.precision == "float32"


@pytest.mark.parametrize("wanted", FORMATS)
def test_a_device_is_used_if_it_has_tensor_cores_and_refused_by_name_if_not(
    plain: Nvidia, wanted: str
) -> None:
    if plain.capability >= (8, 0):
        assert use(plain, wanted) is None
    cpu = open_device("cpu")
    refused = f"--precision {wanted}: .*{cpu.units} units.*engine cpu.*can do float32"
    with pytest.raises(UserError, match=refused):
        use(cpu, wanted)


@pytest.mark.parametrize("wanted", FORMATS)
def test_every_tile_is_right_by_either_instruction(plain: Nvidia, wanted: Format) -> None:
    tensor_cores.need(plain)
    plain.format = STORED[wanted]
    for hopper in plain.instructions:
        plain.wgmma = hopper
        for name, error in precision.errors(plain, wanted):
            assert error < LIMITS[wanted], name


@pytest.mark.parametrize(
    ("capability", "found", "precise", "wgmma", "said"),
    [
        ((9, 0), {True: 1e-5, False: 1e-5}, "high", True, None),
        ((9, 0), {True: 0.5, False: 1e-5}, "high", False, "wgmma.*5.0e-01.*mma.sync"),
        ((9, 0), {True: float("nan"), False: 0.5}, "float32", False, "nan.*float32"),
        ((8, 0), {False: 1e-5}, "high", False, None),
        ((8, 0), {False: 0.5}, "float32", False, "mma.sync.*float32"),
        ((12, 0), {False: 1e-5}, "high", False, None),
    ],
)
def test_wrong_sums_fall_back_with_a_sentence(
    plain: Nvidia,
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    found: dict[bool, float],
    precise: str,
    wgmma: bool,
    said: str | None,
) -> None:
    pretend(monkeypatch, plain, capability, found)
    sentence = use(plain, "high")
    assert plain.format is (STORED["high"] if precise == "high" else FORMAT)
    assert (plain.precision, plain.precision == "high" and plain.wgmma) == (precise, wgmma)
    assert sentence is None if said is None else re.search(said, sentence)


def test_the_check_finds_what_nobody_computed(
    plain: Nvidia, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that do nothing leave NaN behind, which is no small error."""
    real = Nvidia.program

    class Nothing:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments, **named: None

    monkeypatch.setattr(
        Nvidia,
        "program",
        lambda self, name, **facts: (
            Nothing() if "ON_HOPPER" in facts else real(self, name, **facts)
        ),
    )
    found = list(precision.errors(plain, "high"))
    assert len(found) == 3
    assert not any(error < LIMITS["high"] for _, error in found)


@pytest.mark.parametrize("what", PASSES)
def test_tensor_cores_are_taken_only_in_their_precision(plain: Nvidia, what: Any) -> None:
    assert "tensor" not in candidates(plain, G, what)
    plain.precision = "high"
    assert choose(plain, G, what, 4, {}).name == "tensor"
    assert "tensor" not in candidates(plain, replace(G, groups=2), what)


def test_few_channels_are_gathered_and_their_gradient_is_computed_otherwise(plain: Nvidia) -> None:
    plain.precision = "bf16"
    few = replace(G, c=3)
    assert ["tensor" in candidates(plain, few, what) for what in PASSES] == [True, False, True]
    assert "tensor" not in candidates(plain, replace(few, r=1, s=1), "forward")


@pytest.mark.parametrize("wanted", FORMATS)
def test_images_are_taken_as_they_lie_and_only_by_tensor_cores(
    plain: Nvidia, wanted: Format
) -> None:
    plain.precision, plain.format = wanted, STORED[wanted]
    for what in PASSES:
        assert list(candidates(plain, G, what)) == ["tensor", "implicit"]
    written = [choose(plain, G, what, 4, {}).workspace(4) for what in PASSES[:2]]
    assert written == [0, 0]
