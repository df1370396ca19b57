"""Dense layers split over ranks compute what whole ones do: on small whole numbers, whose sums are
exact in any order, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from ranks import open_cpu

from mpitrain.engine.engine import Engine
from mpitrain.layers import Dense, Dropout, Flatten, Relu, SquaredLoss
from mpitrain.layers.dense.sides import Cut, Side, Whole
from mpitrain.layers.layer import Pass
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wire import Wire
from mpitrain.network.graph import Graph
from mpitrain.network.models.chain import Chain
from mpitrain.network.network import Network
from mpitrain.network.simulated import SimulatedGraph
from mpitrain.network.split import split

pytestmark = pytest.mark.mpi(min_size=2)
Floats = NDArray[np.float32]
SHAPE, CLASSES, CAPACITY = (3, 5, 5), 7, 4


@pytest.fixture(scope="module")
def wire() -> Wire:
    return connect()


def network() -> Network:
    """More inputs than outputs, then fewer, then more again, without a bias in one."""
    chain = Chain(dropout=True)
    chain.add("flat", Flatten())
    chain.add("fc1", Dense(21))
    chain.add("relu", Relu())
    chain.add("drop", Dropout(0.5))
    chain.add("fc2", Dense(40, bias=False))
    chain.add("fc3", Dense(CLASSES))
    chain.add("loss", SquaredLoss())
    return Network("three", SHAPE, CLASSES, chain.nodes())


def counts_of(size: int) -> tuple[int, ...]:
    """Uneven: some ranks have several sub-batches, and all but one have none in the last."""
    return tuple(3 * CAPACITY - 1 if rank == size - 1 else 1 + 2 * rank % 5 for rank in range(size))


def whole_numbers(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


class Passes:
    """All runs of a step of a graph, on so many images, with the weights of a seed."""

    def __init__(self, graph: Graph, everyone: Sequence[int], rank: int | None) -> None:
        """rank: whose images, where everyone's are shared out; None: all of them."""
        self.graph, self.scores = graph, np.zeros((0, CLASSES), np.float32)
        self.dweights: dict[str, Floats] = {}
        total = sum(everyone)
        images = whole_numbers(total, *SHAPE, seed=1)
        labels = np.arange(total) % CLASSES
        for name, parameter in graph.parameters.items():
            values = whole_numbers(*parameter.whole, seed=len(name) + ord(name[2]))
            if parameter.placement:
                start, stop = parameter.placement.shards[parameter.placement.rank]
                values = values.take(range(start, stop), parameter.placement.axis)
            own = parameter.placement is not None
            graph.view(graph.own_weights if own else graph.weights, name).write(values)
        first = 0 if rank is None else sum(everyone[:rank])
        counts = (total,) if rank is None else everyone
        mine = total if rank is None else everyone[rank]
        for start in range(0, max(counts), CAPACITY):
            runs = tuple(len(range(count)[start : start + CAPACITY]) for count in counts)
            images_here = slice(first + start, first + min(start + CAPACITY, mine))
            if start >= mine:
                images_here = slice(0, 0)
            run = Pass(
                images_here.stop - images_here.start,
                accumulate=start > 0,
                seed=3,
                first=images_here.start,
                everyone=runs if rank is not None else (),
            )
            graph.load(images[images_here], labels[images_here])
            graph.forward(run)
            scores = graph.scores.reshape((run.images, CLASSES)).download()
            self.scores = np.concatenate((self.scores, scores))
            last = start + CAPACITY >= max(counts)
            assert len(list(graph.backward(run, last))) == (len(graph.buckets) if last else 0)
            assert graph.own_complete == (last and graph.own_layout.length > 0)
        for name, parameter in graph.parameters.items():
            vector = graph.own_gradient if parameter.placement else graph.gradient
            self.dweights[name] = graph.view(vector, name).download()


def test_scores_and_gradients_are_those_of_whole_layers(device: Engine, wire: Wire) -> None:
    rank, size = wire.ranks.rank, wire.ranks.size
    everyone = counts_of(size)
    whole = Passes(Graph(device, network(), CAPACITY), everyone, None)
    placed = split(network(), wire.activations, 1)
    wire.ranks.delay.seconds = 0.001
    found = Passes(Graph(device, placed, CAPACITY), everyone, rank)
    wire.ranks.delay.seconds = 0.0
    first = sum(everyone[:rank])
    right = np.array_equal(found.scores, whole.scores[first : first + everyone[rank]])
    axes = {}
    for name, parameter in found.graph.parameters.items():
        mine, wanted = found.dweights[name], whole.dweights[name]
        if parameter.placement is None:
            wanted_sum = wire.agree.sum(mine.astype(np.float64).reshape(-1))
            right = right and np.array_equal(wanted_sum, wanted.reshape(-1))
            continue
        axis = axes[name] = parameter.placement.axis
        start, stop = parameter.placement.shards[rank]
        right = right and np.array_equal(mine, wanted.take(range(start, stop), axis))
    assert wire.agree.gather_facts(bool(right)) == [True] * size
    assert axes == {"fc1.weight": 1, "fc2.weight": 0, "fc3.weight": 1}
    assert found.graph.count == whole.graph.count
    kept = wire.agree.gather_facts(found.graph.own_layout.count)
    assert sum(kept) == 75 * 21 + 21 * 40 + 40 * CLASSES
    assert max(kept) - min(kept) <= 21 + 21 + CLASSES


def test_a_recorded_run_of_as_many_images_of_others_is_not_taken_for_this_one(
    device: Engine, wire: Wire
) -> None:
    """Commands are kept for runs like one before; here only what others have differs."""
    size, rank = wire.ranks.size, wire.ranks.rank
    graph = Graph(device, split(network(), wire.activations, 1), CAPACITY)
    found = []
    for extra in (0, 1, 0, 1):
        everyone = tuple(1 + extra * (other == size - 1) for other in range(size))
        found.append(Passes(graph, everyone, rank).dweights["fc1.weight"])
    alike = [np.array_equal(found[0], found[2]), np.array_equal(found[1], found[3])]
    assert wire.agree.gather_facts(alike) == [[True, True]] * size


def test_real_and_simulated_passes_send_as_many_bytes_as_is_written_down(wire: Wire) -> None:
    """docs/wire.md: 8 B (N - 1) (whole + cut / N), which ranks' shares of an axis round."""
    size, rank = wire.ranks.size, wire.ranks.rank
    cpu, everyone = open_cpu(), counts_of(size)
    everyone = tuple(min(count, CAPACITY) for count in everyone)
    run = Pass(everyone[rank], everyone=everyone)
    expected = sum(
        8 * sum(everyone) * (size - 1) * (min(sides) + max(sides) / size)
        for sides in ((75, 21), (21, 40), (40, CLASSES))
    )
    found = []
    for make in (Graph, partial(SimulatedGraph, seconds=0.0)):
        graph = make(cpu, split(network(), wire.activations, 1), CAPACITY)
        before = wire.bytes_sent
        graph.load(whole_numbers(run.images, *SHAPE), np.zeros(run.images, np.int64))
        graph.forward(run)
        for _ in graph.backward(run):
            pass
        found.append(sum(wire.agree.gather_facts(wire.bytes_sent - before)))
    assert found[0] == found[1]
    assert found[0] == pytest.approx(expected, rel=0.02)


def sides(wire: Wire) -> Iterator[tuple[Side, int]]:
    for kind in (Cut, Whole):
        for width in (wire.ranks.size, 4 * wire.ranks.size + 1):
            yield kind(wire.activations, width), width


def test_rows_that_are_spread_and_collected_are_the_rows(wire: Wire) -> None:
    """Of whole rows, which every rank has, the sum over ranks."""
    rank, size = wire.ranks.rank, wire.ranks.size
    for everyone in (counts_of(size), (2,) + (0,) * (size - 1)):
        for side, width in sides(wire):
            own = whole_numbers(everyone[rank], width, seed=rank)
            rows = np.full((sum(everyone), side.here), np.nan, np.float32)
            side.spread(rows, own, everyone)
            back = np.full_like(own, np.nan)
            side.collect(back, rows, everyone)
            factor = size if isinstance(side, Whole) else 1
            right = np.array_equal(back, factor * own) and np.isfinite(rows).all()
            assert wire.agree.gather_facts(bool(right)) == [True] * size


def test_layers_that_are_small_or_have_too_few_values_stay_whole(wire: Wire) -> None:
    def names(least: int) -> set[str]:
        placed = split(network(), wire.activations, least)
        return {node.name for node in placed.nodes if node.layer.together}

    assert names(75 * 21) == {"fc1"}
    assert names(75 * 21 + 1) == set()
    assert names(40 * CLASSES) == {"fc1", "fc2", "fc3"}
