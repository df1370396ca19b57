"""A new engine is one class and one line: networks, precisions and the command line take it up."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mpitrain.commands.cli.options import options_of
from mpitrain.engine.cpu import Cpu
from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import REGISTRY, find, open_device
from mpitrain.job.config import Run
from mpitrain.job.errors import UserError
from mpitrain.layers.conv.registry import FAMILIES
from mpitrain.layers.dense.dense import WAYS
from mpitrain.training.train import train


class Packed(Cpu):
    """A CPU without Winograd, that packs the operands of all its products."""

    engine = "packed"
    convolutions = ("direct", "implicit")
    products = ("packed",)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "packed", Packed)


def command() -> click.Command:
    """`mpitrain train`, with the options that the registry gives it now."""
    return click.command()(
        click.argument("network")(options_of(Run)(lambda **options: train(Run(**options))))
    )


def test_the_command_line_trains_with_it(tmp_path: Path) -> None:
    losses = {}
    for name in ("packed", "cpu"):
        out = tmp_path / name
        options = ["lenet", "--device", "cpu", "--engine", name, "--steps", "20", "--quiet"]
        options += ["--out", str(out)]
        done = CliRunner().invoke(command(), options)
        assert done.exit_code == 0, done.output
        events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert f"engine {name}" in events[0]["devices"][0]
        losses[name] = [each["loss"] for each in events if each["event"] == "step"]
    assert losses["packed"] == pytest.approx(losses["cpu"], rel=1e-3)
    assert losses["packed"] != losses["cpu"]  # other sums: it was taken
    assert losses["cpu"][-1] < 0.9 * losses["cpu"][0]


def test_the_command_line_names_those_that_there_are() -> None:
    refused = CliRunner().invoke(command(), ["lenet", "--engine", "no-such"])
    assert refused.exit_code == 2 and "'packed'" in refused.output


@pytest.mark.parametrize("name", ["tpu", "Cpu"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--engine {name}: expected one of auto, nvidia, gpu, cpu"):
        open_device("cpu", engine=name)


@pytest.mark.parametrize("name", ["nvidia", "gpu", "cpu"])
def test_every_line_of_the_registry_leads_to_an_engine_whose_parts_are_there(name: str) -> None:
    engine = find(name)
    assert issubclass(engine, Engine) and engine.engine == name
    assert set(engine.convolutions) <= FAMILIES.keys() and engine.convolutions[-1] == "implicit"
    assert set(engine.products) <= WAYS.keys()
    assert WAYS[engine.products[-1]].most_images == float("inf")


def test_a_device_gets_the_first_engine_that_suits_it() -> None:
    assert open_device("cpu").engine == "cpu"
    assert open_device("cpu", engine="gpu").engine == "gpu"
