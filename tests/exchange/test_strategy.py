"""A new strategy is one class and one line: any number of ranks and the command line take it up."""

from __future__ import annotations

import click
import numpy as np
import pytest
from click.testing import CliRunner
from ranks import LENGTH, Model, digest, true_mean, values

from mpitrain.commands.cli.options import options_of
from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.registry import REGISTRY, find
from mpitrain.exchange.strategy import Strategy, Turn
from mpitrain.job.config import Run
from mpitrain.job.errors import UserError
from mpitrain.mpi.connect import connect
from mpitrain.mpi.hops import Hops


class InRankOrder(Strategy):
    """Everyone sends everything to all, who add it up rank by rank."""

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        transfer, x = self.parts.wire.transfer, self.parts.gradients[bucket.number]
        with x.host(write=True) as mine:
            theirs = [np.empty_like(mine) for _ in range(transfer.size)]
            outgoing = [mine.view(np.uint8)] * transfer.size
            yield transfer.start_all_to_all(outgoing, [each.view(np.uint8) for each in theirs])
            theirs[transfer.rank][:] = mine
            mine[:] = 0
            for each in theirs:
                mine += each
        self.parts.scale(x, 1 / images)
        return 0.0

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        y, w = self.weights(bucket)
        with y.host(write=w is None) as values:
            yield self.parts.wire.transfer.start_broadcast(values, 1)
        return True


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "in-rank-order", InRankOrder)


@pytest.mark.mpi
@pytest.mark.parametrize("update", ["root", "replicated"])
def test_any_number_of_ranks_average_and_spread_with_it(update: str) -> None:
    wire = connect()
    model = Model(wire, "in-rank-order", update)
    report = model.step(0)
    assert report.error_bound == 0 and report.finite
    assert not model.exchange.residuals()
    assert len(set(wire.agree.gather_facts(digest(model.weights.download())))) == 1
    expected = values(LENGTH, 99) - 0.01 * true_mean(wire.ranks.size, 0)
    np.testing.assert_allclose(model.weights.download(), expected, atol=1e-5)


def test_the_command_line_offers_it() -> None:
    command = click.command()(options_of(Run)(lambda **options: None))
    runner = CliRunner()
    assert runner.invoke(command, ["--exchange", "in-rank-order"]).exit_code == 0
    refused = runner.invoke(command, ["--exchange", "no-such"])
    assert refused.exit_code == 2 and "'in-rank-order'" in refused.output


@pytest.mark.parametrize("name", REGISTRY)
def test_every_line_of_the_registry_leads_to_a_strategy(name: str) -> None:
    assert issubclass(find(name), Strategy)


@pytest.mark.parametrize("name", ["int4", "Float32"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(
        UserError, match=f"--exchange {name}: expected one of auto, dynamic8, float"
    ):
        find(name)
