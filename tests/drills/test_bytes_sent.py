"""The log's bytes_sent are those of commands/traffic.py, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from launcher import Launch

from mpitrain.commands.traffic import traffic
from mpitrain.network import models
from mpitrain.network.graph import parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.parameters import Layout

IMAGES = ("lenet", "--batch-size", 6, "--compute-seconds", 0, "--steps", 2)


@pytest.mark.parametrize(
    ("exchange", "ranks"),
    [("float32", 3), ("dynamic8", 4), ("lowrank:2", 3), ("lowrank8", 2),
     ("lowrank8:3", 3)],
)  # fmt: skip
def test_rank_0_sends_the_bytes_that_are_told_before(
    launch: Launch, tmp_path: Path, exchange: str, ranks: int
) -> None:
    network = models.load("lenet")
    layout = Layout(parameters_of(network, infer_shapes(network)))
    each = ("--exchange", exchange, "--data", "digits")
    ended = launch.trains(*IMAGES, *each, ranks=ranks, out=tmp_path / "run")
    last = ended.events("step")[-1]  # no images are sent for a step after it
    assert last["bytes_sent"] == traffic(exchange, layout, ranks).from_root
