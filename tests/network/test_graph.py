"""A network with memory: branches, sub-batches, buckets, and what is said when layers do not
fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.engine.registry import open_device
from mpitrain.job.errors import UserError
from mpitrain.layers import (
    Add,
    BatchNorm,
    Concat,
    Convolution,
    Dense,
    Flatten,
    MaxPool,
    Relu,
    Relu6,
    SoftmaxCrossEntropy,
)
from mpitrain.layers.layer import Layer, Pass
from mpitrain.network import models
from mpitrain.network.fuse import fuse
from mpitrain.network.graph import Graph
from mpitrain.network.memory import infer_shapes, make_plan
from mpitrain.network.network import Network, Node


def network(
    *nodes: tuple[str, Layer, tuple[str, ...]],
    shape: tuple[int, int, int] = (2, 6, 6),
    classes: int = 3,
) -> Network:
    return Network("test", shape, classes, tuple(Node(*node) for node in nodes))


def chain() -> Network:
    """Nothing in it measures."""
    return network(
        ("conv", Convolution(4, 3, padding=1), ("input",)),
        ("flat", Flatten(), ("conv",)),
        ("scores", Dense(3), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
    )


def branching() -> Network:
    """`first` is used three times, once by each of two layers and twice by one of them."""
    return network(
        ("first", Convolution(4, 3, padding=1), ("input",)),
        ("left", Convolution(4, 3, padding=1), ("first",)),
        ("norm", BatchNorm(), ("left",)),
        ("relu", Relu(), ("norm",)),
        ("sum", Add(), ("relu", "first")),
        ("twice", Add(), ("sum", "first")),
        ("doubled", Add(), ("twice", "twice")),
        ("joined", Concat(), ("first", "doubled", "first")),
        ("flat", Flatten(), ("joined",)),
        ("scores", Dense(3), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
    )


def filled(graph: Graph, seed: int = 1) -> np.ndarray:
    """Random weights in every tensor (the gaps stay zero), which are returned."""
    vector = np.zeros(graph.layout.length, np.float32)
    random = np.random.default_rng(seed)
    for slot in graph.layout.slots.values():
        vector[slot.start : slot.stop] = random.normal(scale=0.3, size=slot.stop - slot.start)
    graph.weights.write(vector)
    return vector


def run(
    graph: Graph,
    images: np.ndarray,
    labels: np.ndarray,
    accumulate: bool = False,
    last: bool = True,
) -> float:
    what = Pass(len(images), accumulate=accumulate)
    graph.load(images, labels)
    graph.forward(what)
    for _ in graph.backward(what, last):
        pass
    return float(graph.losses(len(images)).sum(dtype=np.float64))


def test_weights_for_tensor_cores_are_packed_from_the_flat_vector() -> None:
    """Of each convolution, both ways, with its bias; the first one's x has too few channels."""
    device = open_device("pocl", engine="nvidia")
    device.precision = "high"
    graph = Graph(
        device,
        network(
            ("first", Convolution(5, 3, padding=1), ("input",)),
            ("second", Convolution(70, 3, padding=1), ("first",)),
            ("flat", Flatten(), ("second",)),
            ("scores", Dense(3), ("flat",)),
            ("loss", SoftmaxCrossEntropy(), ("scores",)),
        ),
        capacity=1,
    )
    vector = filled(graph)
    assert graph._packed is not None
    graph._packed.write(graph.weights, graph.weights)
    packings = [each for node in graph.network.nodes for each, _ in node.layer.packings()]
    assert [(each.sums.c, each.sums.k) for each in packings] == [(18, 5), (5, 70), (70, 5)]
    slot = graph.layout.slots["second.bias"]
    bias = packings[1].bias.download()[:70]
    np.testing.assert_array_equal(bias, vector[slot.start : slot.start + 70])
    assert not packings[2].bias.download().any()
    graph.weights.write(vector * 2)
    graph._packed.write(graph.weights, graph.weights)
    np.testing.assert_array_equal(packings[1].bias.download()[:70], 2 * bias)


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(6, 2, 6, 6)).astype(np.float32), random.integers(0, 3, 6)


def test_a_value_used_twice_gets_the_sum_of_its_gradients(
    device: Engine, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    """Against the slope of the loss along random directions, which only the whole gradient
    gives."""
    graph = Graph(device, branching(), capacity=6)
    weights = filled(graph)
    run(graph, *batch)
    gradient = graph.gradient.download().astype(np.float64)
    random, step = np.random.default_rng(3), 1e-3
    for _ in range(4):
        direction = np.where(weights != 0, random.choice([-1.0, 1.0], weights.shape), 0)
        losses = []
        for sign in (1, -1):
            graph.weights.write((weights + sign * step * direction).astype(np.float32))
            losses.append(run(graph, *batch))
        graph.weights.write(weights)
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(gradient @ direction, rel=2e-2, abs=2e-2)


def test_sub_batches_add_up_to_the_batch(
    device: Engine, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = batch
    plain = network(
        ("conv", Convolution(4, 3), ("input",)),
        ("pool", MaxPool(2), ("conv",)),
        ("relu", Relu(), ("pool",)),
        ("flat", Flatten(), ("relu",)),
        ("scores", Dense(3), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
    )
    graph = Graph(device, plain, capacity=6)
    filled(graph)
    whole_loss = run(graph, images, labels)
    whole = graph.gradient.download()
    loss = sum(
        run(graph, images[a:b], labels[a:b], accumulate=a > 0, last=b == 6)
        for a, b in ((0, 4), (4, 5), (5, 6))
    )
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    np.testing.assert_allclose(graph.gradient.download(), whole, rtol=1e-4, atol=1e-5)


def test_buckets_cover_the_vector_once_and_are_complete_when_they_come(
    monkeypatch: pytest.MonkeyPatch, device: Engine
) -> None:
    monkeypatch.setattr("mpitrain.network.parameters.BUCKET", 4096)
    graph = Graph(device, models.load("lenet"), capacity=2)
    graph.weights.write(graph.layout.initial(0))
    graph.load(
        np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32), np.array([1, 2])
    )
    graph.forward(Pass(2))
    graph.gradient.fill(np.nan)
    seen = [
        (bucket, graph.gradient.part(bucket.start, bucket.stop).download())
        for bucket in graph.backward(Pass(2))
    ]
    final = graph.gradient.download()
    for bucket, content in seen:
        np.testing.assert_array_equal(content, final[bucket.start : bucket.stop])
    monkeypatch.setattr("mpitrain.runtime.lead.LEAST", 0)
    asked: list[bool] = []
    graph.keep_near(lambda: asked.append(True) or True)  # type: ignore[func-returns-value]
    graph.forward(Pass(2))
    list(graph.backward(Pass(2)))
    assert len(asked) > 2
    np.testing.assert_array_equal(graph.gradient.download(), final)
    coded = [bucket for bucket, _ in seen if bucket.stop <= graph.layout.coded]
    assert [bucket.start for bucket in coded] == sorted(
        (bucket.start for bucket in coded), reverse=True
    )
    assert sum(bucket.stop - bucket.start for bucket, _ in seen) == graph.layout.length
    assert seen[-1][0].start == graph.layout.coded and not seen[-1][0].coded
    for slot in graph.layout.slots.values():
        assert np.isfinite(final[slot.start : slot.stop]).all(), slot.name


def test_only_the_last_images_of_a_step_give_buckets(device: Engine) -> None:
    graph = Graph(device, models.load("lenet"), capacity=1)
    graph.load(np.zeros((1, 1, 28, 28), np.float32), np.array([0]))
    graph.forward(Pass(1))
    assert list(graph.backward(Pass(1), last=False)) == []
    assert list(graph.backward(Pass(1, accumulate=True))) == graph.buckets


def test_without_a_way_back_scores_and_losses_are_the_same_in_less_memory(
    device: Engine, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = batch
    found = []
    for training in (True, False):
        graph = Graph(device, branching(), capacity=6, training=training)
        filled(graph)
        graph.load(images, labels)
        graph.forward(Pass(6, training=False))
        found.append((graph.scores.download(), graph.losses(6), graph.nbytes))
        np.testing.assert_array_equal(graph.labels.download(), labels)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert found[1][2] < found[0][2]


def test_statistics_start_as_no_change_and_are_measured_in_training_alone(
    device: Engine, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    graph = Graph(device, branching(), capacity=6)
    filled(graph)

    def statistics() -> dict[str, np.ndarray]:
        vector = graph.statistics.download()
        return {
            name: vector[slot.start : slot.stop]
            for name, slot in graph.statistics_layout.slots.items()
        }

    fresh = {name: 1.0 if name.endswith("var") else 0.0 for name in statistics()}
    assert len(fresh) == 2
    graph.load(*batch)
    graph.forward(Pass(6, training=False))
    for name, values in statistics().items():
        np.testing.assert_array_equal(values, fresh[name])
    graph.forward(Pass(6))
    for name, values in statistics().items():
        assert (values != fresh[name]).all(), name


def test_a_second_step_forgets_the_first(
    device: Engine, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    """Nothing but weights and statistics is left in shared memory from one step to the next."""
    images, labels = batch
    graph = Graph(device, branching(), capacity=6)
    filled(graph)
    loss = run(graph, images, labels)
    gradient = graph.gradient.download()
    run(graph, 100 * images[::-1], labels[::-1].copy())
    assert run(graph, images, labels) == loss
    np.testing.assert_array_equal(graph.gradient.download(), gradient)


def test_loaded_images_stay_as_they_are(
    device: Engine, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    """A first layer that could work in place does not: the same images may go forward again."""
    graph = Graph(
        device,
        network(
            ("double", Add(), ("input", "input")),
            ("flat", Flatten(), ("double",)),
            ("scores", Dense(3), ("flat",)),
            ("loss", SoftmaxCrossEntropy(), ("scores",)),
        ),
        capacity=6,
    )
    filled(graph)
    graph.load(*batch)
    graph.forward(Pass(6))
    first = graph.scores.download()
    graph.forward(Pass(6))
    np.testing.assert_array_equal(graph.scores.download(), first)


def test_a_first_bucket_comes_before_the_first_layer_is_reached(
    monkeypatch: pytest.MonkeyPatch, device: Engine
) -> None:
    monkeypatch.setattr("mpitrain.network.parameters.BUCKET", 4096)
    graph = Graph(device, models.load("lenet"), capacity=1)
    graph.load(np.zeros((1, 1, 28, 28), np.float32), np.array([0]))
    graph.forward(Pass(1))
    graph.gradient.fill(77.0)
    next(graph.backward(Pass(1)))
    assert (graph.view(graph.gradient, "conv1.weight").download() == 77).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: [("conv", Convolution(4, 9), ("input",))],
            "conv: a 9x9 filter does not fit into an input of 6x6",
        ),
        (
            lambda: [("fc", Dense(3), ("input",))],
            r"fc: takes one row of values an image, got \(2, 6, 6\); flatten first",
        ),
        (lambda: [("a", Relu(), ("nowhere",))], "a: there is no earlier layer 'nowhere'"),
        (lambda: [("a", Relu(), ("input",)), ("a", Relu(), ("a",))], "a: two layers of this name"),
        (lambda: [("sum", Add(), ("input",))], "sum: takes 2 inputs, got 1"),
        (
            lambda: [("conv", Convolution(4, 3), ("input",)), ("sum", Add(), ("conv", "input"))],
            r"sum: adds two values of one shape, got \(4, 4, 4\) and \(2, 6, 6\)",
        ),
    ],
)
def test_what_does_not_fit_names_the_layer(
    device: Engine, make: Callable[[], list[tuple[str, Layer, tuple[str, ...]]]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Graph(device, network(*make()), capacity=1)


def test_scores_must_be_as_many_as_the_classes(device: Engine) -> None:
    wrong = network(
        ("flat", Flatten(), ("input",)),
        ("scores", Dense(4), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
    )
    with pytest.raises(UserError, match=r"loss: expected 3 scores, one a class, got \(4,\)"):
        Graph(device, wrong, capacity=1)


def test_values_computed_twice_give_the_same_bits(
    device: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch normalisations behind each other, one read twice, one by a layer that works in place:
    only where blocks are."""
    nodes = network(
        ("first", Convolution(20, 3, padding=1), ("input",)),
        ("norm1", BatchNorm(), ("first",)),
        ("relu1", Relu(), ("norm1",)),
        ("second", Convolution(20, 3, padding=1), ("relu1",)),
        ("norm2", BatchNorm(), ("second",)),
        ("norm3", BatchNorm(), ("norm2",)),
        ("third", Convolution(20, 1), ("norm3",)),
        ("fourth", Convolution(20, 3, padding=1), ("norm3",)),
        ("sum", Add(), ("third", "fourth")),
        ("norm4", BatchNorm(), ("sum",)),
        ("pool", MaxPool(2), ("norm4",)),
        ("flat", Flatten(), ("pool",)),
        ("scores", Dense(3), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
        shape=(2, 16, 16),
    )
    random = np.random.default_rng(0)
    images, labels = random.normal(size=(6, 2, 16, 16)).astype(np.float32), random.integers(0, 3, 6)
    found = []
    for kept in (False, True):
        if kept:
            monkeypatch.setattr(BatchNorm, "can_repeat", lambda *_: False)
        graph = Graph(device, nodes, capacity=6)
        filled(graph)
        loss = run(graph, images, labels)
        found.append(
            (loss, graph.gradient.download().tobytes(), graph.statistics.download().tobytes())
        )
        twice = set() if kept or not device.long_items else {"norm1", "norm2"}
        assert set(graph.plan.repeated) == twice
    assert found[0] == found[1]


def test_what_is_computed_twice_is_there_when_it_is_read(
    device: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shortcut's sum takes such a value first on the way back, and reads nothing of it."""
    nodes = network(
        ("first", Convolution(20, 3, padding=1), ("input",)),
        ("norm1", BatchNorm(), ("first",)),
        ("wide", Convolution(40, 1, bias=False), ("norm1",)),
        ("norm2", BatchNorm(), ("wide",)),
        ("relu2", Relu6(), ("norm2",)),
        ("depthwise", Convolution(40, 3, padding=1, groups=40, bias=False), ("relu2",)),
        ("norm3", BatchNorm(), ("depthwise",)),
        ("relu3", Relu6(), ("norm3",)),
        ("narrow", Convolution(20, 1, bias=False), ("relu3",)),
        ("norm4", BatchNorm(), ("narrow",)),
        ("sum", Add(), ("norm4", "norm1")),
        ("flat", Flatten(), ("sum",)),
        ("scores", Dense(3), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
        shape=(2, 9, 8),
    )
    random = np.random.default_rng(0)
    images, labels = random.normal(size=(4, 2, 9, 8)).astype(np.float32), random.integers(0, 3, 4)
    found = []
    for kept in (False, True):
        if kept:
            monkeypatch.setattr(BatchNorm, "can_repeat", lambda *_: False)
        graph = Graph(device, nodes, capacity=4)
        filled(graph)
        found.append((run(graph, images, labels), graph.gradient.download().tobytes()))
        assert ("norm1" in graph.plan.repeated) == (device.long_items and not kept)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_computing_twice_saves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = models.load(name)
    shapes, fused = infer_shapes(net), fuse(net, Format(16))
    repeated = make_plan(fused, shapes, 4, True, Format(16), repeats=True).nbytes
    monkeypatch.setattr(BatchNorm, "can_repeat", lambda *_: False)
    assert repeated < 0.9 * make_plan(fused, shapes, 4, True, Format(16), repeats=True).nbytes


def test_a_graph_leaves_the_network_it_is_given_as_it_was(device: Engine) -> None:
    network = models.load("lenet")
    before = {node.name: dict(vars(node.layer)) for node in network.nodes}
    Graph(device, network, 2)
    assert {node.name: dict(vars(node.layer)) for node in network.nodes} == before


def test_a_layer_may_have_any_name(device: Engine) -> None:
    """Recorded parts of a run have keys of their own: a layer named as a pass is learns like any
    other."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (4, 1, 4, 4), np.uint8), np.array([0, 1, 2, 1])
    nodes = (
        Node("flat", Flatten(), ("input",)),
        Node("forward", Dense(3), ("flat",)),
        Node("loss", SoftmaxCrossEntropy(), ("forward",)),
    )
    graph = Graph(device, Network("named", (1, 4, 4), 3, nodes), 4)
    graph.weights.write(graph.layout.initial(0))
    found = []
    for _ in range(2):  # as it is recorded, and from the recording
        graph.load(images, labels)
        graph.forward(Pass(4))
        graph.gradient.fill(0)
        list(graph.backward(Pass(4)))
        found.append(graph.gradient.download())
    assert np.abs(found[0]).sum() > 0
    np.testing.assert_array_equal(found[0], found[1])


def test_a_run_that_has_begun_is_known_until_something_else_is_loaded(device: Engine) -> None:
    graph, random = Graph(device, chain(), 4), np.random.default_rng(0)
    filled(graph)
    images = random.standard_normal((4, 2, 6, 6), np.float32)
    labels = np.array([0, 1, 2, 0], np.int32)
    run(graph, images, labels)
    losses = graph.losses(4)
    this, other = Pass(4, seed=7), Pass(4, seed=8)
    assert not graph.has_begun(this, images, labels)
    for after, known in (
        (lambda: None, True),
        (lambda: graph.load(images, labels), False),
        (lambda: graph.forward(other), False),
    ):
        graph.begin(this, images, labels)
        after()
        assert graph.has_begun(this, images, labels) == known
    for asked in ((other, images, labels), (this, images[:3], labels), (this, images, labels + 1)):
        graph.begin(this, images, labels)
        assert not graph.has_begun(*asked)
    graph.begin(this, images, labels)
    later = graph.losses_later(3)
    if not device.shares_memory:  # who computes itself reads them when they are asked for
        graph.begin(this, images[::-1].copy(), labels)
    np.testing.assert_array_equal(later(), losses[:3])
    assert not Graph(device, branching(), 4).can_begin
