"""Network files: what is written reads back the same, and an error names the file, the layer and
the key."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers import (
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    MaxPool,
    SquaredLoss,
)
from mpitrain.network.memory import infer_shapes
from mpitrain.network.models import NAMES, load
from mpitrain.network.models.netfile import TYPES, decode, encode
from mpitrain.network.network import Network, Node

SMALL = """
name = "small"
input = [1, 28, 28]
classes = 10

[[layer]]
name = "conv1"
type = "convolution"
channels = 20
kernel = 5

[[layer]]
name = "drop"
type = "dropout"

[[layer]]
name = "conv2"
type = "convolution"
channels = 20
kernel = [3, 1]
padding = [1, 0]

[[layer]]
name = "sum"
type = "add"
inputs = ["conv2", "drop"]

[[layer]]
name = "flatten"
type = "flatten"

[[layer]]
name = "fc"
type = "dense"
features = "classes"

[[layer]]
name = "loss"
type = "softmax_cross_entropy"
"""


def described(network):
    """Everything that makes a network, in a form that compares."""
    return [
        (node.name, node.inputs, type(node.layer), arguments(node.layer)) for node in network.nodes
    ]


def arguments(layer):
    """What a layer was made with; `bias` is kept as has_bias, because the parameter takes its
    name."""
    keys = inspect.signature(type(layer)).parameters
    return {key: getattr(layer, "has_bias" if key == "bias" else key) for key in keys}


def layer_named(network, name):
    return next(node.layer for node in network.nodes if node.name == name)


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_network_reads_back_the_same(name, dropout):
    network = load(name, None, None, dropout)
    again = decode(encode(network), "file", dropout=dropout)
    assert described(again) == described(network)
    assert (again.name, again.input_shape, again.classes) == (
        network.name,
        network.input_shape,
        network.classes,
    )
    assert again.defaults == network.defaults


@pytest.mark.parametrize("name", NAMES)
def test_a_written_network_adapts_to_the_data_as_the_built_in_one_does(name):
    adapted = decode(encode(load(name, None, None, True)), "file", (3, 64, 64), 17)
    assert described(adapted) == described(load(name, (3, 64, 64), 17, True))
    assert (adapted.input_shape, adapted.classes) == ((3, 64, 64), 17)


def test_all_arguments_survive():
    nodes = (
        Node(
            "a",
            Convolution(8, (3, 5), stride=(2, 1), padding=(1, 2), groups=2, bias=False),
            ("input",),
        ),
        Node("b", MaxPool(3, stride=2, padding=1, ceil=True), ("a",)),
        Node("c", AveragePool((2, 3), count_padding=False), ("b",)),
        Node("d", BatchNorm(momentum=0.25, epsilon=1e-6), ("c",)),
        Node("e", Dropout(p=0.125), ("d",)),
        Node("f", Dense(4, bias=False), ("e",)),
        Node("g", SquaredLoss(), ("f",)),
    )
    network = Network("all", (2, 9, 9), 5, nodes)
    assert described(decode(encode(network), "file")) == described(network)


def test_a_file_says_what_it_is(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    network = load(str(path), None, None, True)
    assert [(node.name, node.inputs) for node in network.nodes][:4] == [
        ("conv1", ("input",)),
        ("drop", ("conv1",)),
        ("conv2", ("drop",)),
        ("sum", ("conv2", "drop")),
    ]
    assert layer_named(network, "fc").features == 10
    assert network.defaults == {"batch_size": 256, "weight_decay": 0.0, "data": "synthetic"}


def test_a_dropout_left_out_is_bridged():
    nodes = {node.name: node.inputs for node in decode(SMALL, "file", dropout=False).nodes}
    assert "drop" not in nodes
    assert nodes["conv2"] == ("conv1",)
    assert nodes["sum"] == ("conv2", "conv1")


def test_features_named_classes_are_the_datas():
    network = decode(SMALL, "file", (1, 8, 8), 3)
    assert (layer_named(network, "fc").features, network.classes, network.input_shape) == (
        3,
        3,
        (1, 8, 8),
    )


def test_a_network_that_does_not_adapt_needs_scores_enough():
    fixed = SMALL.replace('"classes"', "10")
    assert decode(fixed, "file", None, 4).classes == 10
    with pytest.raises(
        UserError, match="file: gives 10 scores, but there are 11 classes: write features"
    ):
        decode(fixed, "file", None, 11)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input =", "input", "file: not TOML: .*line 3"),
        ('name = "small"', "", r"file: missing key name \(a string\)"),
        ('name = "small"', 'name = "a b"', 'file: key name: expected letters, .* got "a b"'),
        (
            "classes = 10",
            'classes = "ten"',
            'file: key classes: expected a whole number, got "ten"',
        ),
        ("classes = 10", "classes = 0", "file: key classes: expected 1 to 1048576, got 0"),
        (
            "[1, 28, 28]",
            "[28, 28]",
            r"file: key input: expected \[channels, height, width\], got \[28, 28\]",
        ),
        (
            "[1, 28, 28]",
            '"28x28"',
            'file: key input: expected a list of whole numbers, got "28x28"',
        ),
        (
            "classes = 10",
            "classes = 10\nbatchsize = 3",
            "file: unknown key batchsize; did you mean batch_size",
        ),
        ('name = "conv1"', "", r"file: layer number 1: missing key name"),
        ('name = "conv1"', "name = 1", "file: layer 1: key name: expected letters, .* got 1"),
        ('name = "conv1"', 'name = "input"', "file: layer input: key name: input means the images"),
        (
            'name = "conv2"',
            'name = "conv1"',
            "file: layer conv1: key name: conv1 is taken by an earlier layer",
        ),
        (
            '"convolution"',
            '"convolve"',
            'file: layer conv1: key type: unknown type "convolve"; did you mean convolution',
        ),
        ('type = "convolution"', "", "file: layer conv1: missing key type"),
        ("channels = 20", "", r"file: layer conv1: missing key channels \(a whole number\)"),
        (
            "kernel = 5",
            "kernel = 5\nstrides = 2",
            "file: layer conv1: unknown key strides; did you mean stride",
        ),
        (
            "kernel = 5",
            'kernel = "5"',
            'file: layer conv1: key kernel: expected a whole number.*, got "5"',
        ),
        (
            "kernel = 5",
            "kernel = [5, 5, 5]",
            r"file: layer conv1: key kernel: expected .*, got \[5, 5, 5\]",
        ),
        (
            "kernel = 5",
            "kernel = 5\nbias = 1",
            "file: layer conv1: key bias: expected true or false, got 1",
        ),
        ("kernel = 5", "kernel = true", "file: layer conv1: key kernel: expected .*, got true"),
        (
            '"dropout"',
            '"dropout"\np = "half"',
            'file: layer drop: key p: expected a number, got "half"',
        ),
        (
            '"conv2", "drop"',
            '"conv2", "dorp"',
            'file: layer sum: key inputs: no layer is named "dorp"; did you mean drop',
        ),
        (
            '"conv2", "drop"',
            '"conv2", "fc"',
            "file: layer sum: key inputs: fc is not before this layer",
        ),
        (
            '"conv2", "drop"',
            '"conv2", "sum"',
            "file: layer sum: key inputs: sum is not before this layer",
        ),
        (
            '["conv2", "drop"]',
            '"conv2"',
            'file: layer sum: key inputs: expected a list of names, got "conv2"',
        ),
        ('inputs = ["conv2", "drop"]', "", "file: layer sum: key inputs: add takes 2 names, got 1"),
        (
            '"flatten"\n\n',
            '"squared_loss"\n\n',
            "file: layer flatten: the last layer, and no other, is the loss",
        ),
        (
            '"softmax_cross_entropy"',
            '"relu"',
            "file: layer loss: the last layer, and no other, is the loss",
        ),
    ],
)
def test_an_error_names_the_file_the_layer_and_the_key(old, new, message):
    assert old in SMALL
    with pytest.raises(UserError, match=message):
        decode(SMALL.replace(old, new, 1), "file")


def test_a_file_without_layers_is_refused():
    with pytest.raises(UserError, match=r"file: expected a \[\[layer\]\], got none"):
        decode('name = "none"\ninput = [1, 2, 2]\nclasses = 2\nlayer = []', "file")


def test_a_file_that_cannot_be_read_is_a_users_error(tmp_path):
    with pytest.raises(
        UserError, match=r"missing\.toml: cannot read the network file: No such file"
    ):
        load(str(tmp_path / "missing.toml"), None, None, True)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(UserError, match="UTF-8"):
        load(str(tmp_path / "latin.toml"), None, None, True)


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ("channels = 20", "channels = 9223372036854775807", "key channels: expected at most"),
        ('features = "classes"', "features = 9223372036854775807", "key features: expected at"),
        ("classes = 10", "classes = 99999999999999999999", "key classes: expected 1 to 1048576"),
        ("classes = 10", "classes = 1" + 4000 * "0", "got a number of more than 30 digits"),
        ("input = [1, 28, 28]", "input = [1, 2000000, 2000000]", "key input: expected at most"),
        ("input = [1, 28, 28]", "input = [1, 99999, 99999]", "layer conv1: it has 199,9"),
        ("channels = 20", "channels = 1000000", "layer conv2: it has 3,000,0"),
        ("kernel = 5", "kernel = -9223372036854775807", "key kernel: expected at most"),
    ],
)
def test_sizes_that_no_device_has_are_refused_at_once(was, now, words):
    with pytest.raises(UserError, match=f"^file: .*{words}"):
        decode(SMALL.replace(was, now), "file")


def test_concat_takes_two_names_or_more():
    text = SMALL.replace('type = "add"', 'type = "concat"')
    for names in ('"conv2", "drop"', '"drop", "conv2", "drop", "conv1"'):
        network = decode(text.replace('"conv2", "drop"', names), "file")
        assert infer_shapes(network)["sum"][0] == 20 * (names.count(",") + 1)
        again = decode(encode(network), "file")
        assert [node.inputs for node in again.nodes] == [node.inputs for node in network.nodes]
    with pytest.raises(UserError, match="layer sum: key inputs: concat takes 2 or more names, got"):
        decode(text.replace('inputs = ["conv2", "drop"]', ""), "file")


def test_the_page_about_network_files_is_true():
    """Its example is a network, and its table has every type with every key."""
    page = (Path(__file__).parents[3] / "docs/network-files.md").read_text()
    example = page.partition("```toml")[2].partition("```")[0]
    assert [node.name for node in decode(example, "page").nodes][-2:] == ["fc", "loss"]
    for name, kind in TYPES.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        keys = inspect.signature(kind).parameters
        assert all(f"`{key}`" in row or f"`{key} = " in row for key in keys), (name, [*keys])
