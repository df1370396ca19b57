"""A run whose buckets were longer, for codes through shared memory, goes on bit for bit where
others would be usual: residuals are kept in the order of buckets."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeWorld

from mpitrain.exchange import coded
from mpitrain.mpi.connect import connect
from mpitrain.training import join, loop
from mpitrain.training.hooks import registry
from mpitrain.training.plan import Progress
from mpitrain.training.world import World


def trained(world: World) -> str:
    progress = Progress(world.plan.begun)
    loop.run(world, progress, registry.make_hooks(world.plan))
    return world.state.sha256()


@pytest.mark.mpi(min_size=2)
def test_a_run_goes_on_with_the_buckets_that_it_had(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "BUCKET", 1 << 15)
    folder = Path(connect().agree.from_root(lambda: str(tmp_path)))
    words = {"device": "pocl", "engine": "gpu", "exchange": "dynamic8"}
    straight = make_world(steps=4, out=str(folder / "straight"), **words)
    assert max(bucket.size for bucket in straight.local.graph.buckets) == 1 << 18
    wanted = trained(straight)
    trained(make_world(steps=2, out=str(folder / "half"), **words))
    monkeypatch.setattr(coded, "pays", lambda *_: False)
    resumed = make_world(steps=4, out=str(folder / "half"), resume="newest", **words)
    assert str(resumed.exchange) == ""
    assert trained(resumed) == wanted
