"""What --dense auto says: nothing where nothing is large or the exchange is hidden, and both times
where splitting saves."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire
from mpitrain.network import models
from mpitrain.training.hooks.advise import advice

pytestmark = pytest.mark.mpi(min_size=2)


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def said(wire: Wire, network: str, total: float, exchanged: float) -> str:
    counts = tuple(1 + rank % 2 for rank in range(wire.ranks.size))
    plan = SimpleNamespace(network=models.load(network))
    world: Any = SimpleNamespace(plan=plan, wire=wire, feed=SimpleNamespace(counts=counts))
    return advice(world, total, exchanged)


def test_it_speaks_where_most_of_a_step_is_the_dense_layers_exchange(wire: Wire) -> None:
    """VGG16's are 89.4 % of the values; their activations take no hours."""
    words = said(wire, "vgg16", 36000, 30000)
    assert wire.agree.gather_facts(words) == [words] * wire.ranks.size
    found = re.search(r"about (\S+) s a step, whole layers take (\S+) s", words)
    assert found
    assert float(found[1]) == pytest.approx(36000 - 0.894 * 30000, rel=0.05)
    assert float(found[2]) == 36000


@pytest.mark.parametrize(
    ("network", "total", "exchanged"),
    [("vgg16", 36000, 0), ("vgg16", 1e-6, 1e-6), ("lenet", 36000, 36000), ("resnet18", 99, 98)],
    ids=["hidden", "fast links", "nothing large", "few values"],
)
def test_it_is_silent_where_little_is_saved(
    wire: Wire, network: str, total: float, exchanged: float
) -> None:
    assert wire.agree.gather_facts(said(wire, network, total, exchanged)) == [""] * wire.ranks.size
