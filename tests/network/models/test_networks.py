"""The built-in networks are the published ones: the same parameters, under the same names."""

from __future__ import annotations

import math

import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers import Convolution, Dense, Dropout
from mpitrain.network.graph import parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.models import NAMES, counterparts, load
from mpitrain.network.parameters import Layout

# LeNet, VGG16 and ResNet152 as in the paper, the others as torchvision publishes them.
PUBLISHED = {
    "lenet": (431_080, 8),
    "vgg11": (132_863_336, 22),
    "vgg13": (133_047_848, 26),
    "vgg16": (138_357_544, 32),
    "vgg19": (143_667_240, 38),
    "resnet18": (11_689_512, 62),
    "resnet34": (21_797_672, 110),
    "resnet50": (25_557_032, 161),
    "resnet101": (44_549_160, 314),
    "resnet152": (60_192_808, 467),
    "alexnet": (61_100_840, 16),
    "densenet121": (7_978_856, 364),
    "densenet169": (14_149_480, 508),
    "densenet201": (20_013_928, 604),
    "mobilenetv2": (3_504_872, 158),
}


def test_every_network_has_a_published_size():
    assert set(PUBLISHED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_published_ones(name, tensors):
    shapes = tensors(load(name, None, None, True))
    assert (sum(math.prod(shape) for shape in shapes.values()), len(shapes)) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_is_the_loss_of_one_score_a_class(name, values):
    network = load(name, None, 7, True)
    assert network.classes == 7
    assert network.nodes[-1].name == "loss"
    assert values(network)[network.nodes[-1].inputs[0]] == (7,)


@pytest.mark.parametrize(
    ("name", "some"),
    [
        (
            "lenet",
            {
                "conv1.weight": (20, 1, 5, 5),
                "conv2.bias": (50,),
                "fc1.bias": (500,),
                "fc2.bias": (10,),
            },
        ),
        (
            "vgg11",
            {
                "features.0.weight": (64, 3, 3, 3),
                "features.18.bias": (512,),
                "classifier.6.bias": (1000,),
            },
        ),
        (
            "resnet18",
            {"layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer4.1.bn2.weight": (512,)},
        ),
        (
            "resnet50",
            {
                "conv1.weight": (64, 3, 7, 7),
                "bn1.weight": (64,),
                "layer1.0.downsample.1.bias": (256,),
                "layer2.0.conv2.weight": (128, 128, 3, 3),
                "layer4.2.conv3.weight": (2048, 512, 1, 1),
                "fc.bias": (1000,),
            },
        ),
        (
            "alexnet",
            {
                "features.0.weight": (64, 3, 11, 11),
                "features.10.bias": (256,),
                "classifier.1.weight": (4096, 9216),
                "classifier.6.bias": (1000,),
            },
        ),
        (
            "densenet121",
            {
                "features.conv0.weight": (64, 3, 7, 7),
                "features.denseblock1.denselayer1.norm1.weight": (64,),
                "features.denseblock3.denselayer24.conv1.weight": (128, 992, 1, 1),
                "features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
                "features.transition2.conv.weight": (256, 512, 1, 1),
                "features.norm5.bias": (1024,),
                "classifier.bias": (1000,),
            },
        ),
        (
            "mobilenetv2",
            {
                "features.0.0.weight": (32, 3, 3, 3),
                "features.1.conv.0.0.weight": (32, 1, 3, 3),
                "features.1.conv.2.bias": (16,),
                "features.2.conv.1.0.weight": (96, 1, 3, 3),
                "features.17.conv.3.weight": (320,),
                "features.18.1.weight": (1280,),
                "classifier.1.weight": (1000, 1280),
            },
        ),
    ],
)
def test_tensors_have_torchvisions_names_and_shapes(name, some, tensors):
    shapes = tensors(load(name, None, None, True))
    assert {key: shapes.get(key) for key in some} == some


def test_bottlenecks_stride_in_their_3x3(values):
    shapes = values(load("resnet50", None, None, True))
    assert shapes["layer2.0.conv1"] == (128, 56, 56)
    assert shapes["layer2.0.conv2"] == (128, 28, 28)


def test_vggs_first_dense_layer_takes_whatever_the_features_give(tensors):
    for size, inputs in ((224, 25088), (64, 2048), (32, 512)):
        network = load("vgg16", (3, size, size), 10, True)
        assert 4096 * inputs == math.prod(tensors(network)["classifier.0.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_without_dropout_nothing_else_changes(name, tensors):
    whole, less = load(name, None, None, True), load(name, None, None, False)
    assert not any(isinstance(node.layer, Dropout) for node in less.nodes)
    assert tensors(less) == tensors(whole)


@pytest.mark.parametrize(
    ("name", "gflop"), [("alexnet", 1.4284), ("densenet121", 5.6683), ("mobilenetv2", 0.6015)]
)
def test_their_work_is_counted_a_group_at_a_time(name, gflop, values):
    """Twice the multiplications that torchvision's pages give: 0.71, 2.83 and 0.30 billion."""
    network = load(name, None, None, True)
    shapes = values(network)
    work = sum(node.layer.flops(*(shapes[each] for each in node.inputs)) for node in network.nodes)
    assert work / 1e9 == pytest.approx(gflop, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "tensor", "deviation"),
    [
        ("alexnet", "features.3.weight", 1 / math.sqrt(3 * 64 * 25)),
        ("alexnet", "classifier.4.bias", 1 / math.sqrt(3 * 4096)),
        ("densenet121", "features.denseblock1.denselayer1.conv2.weight", math.sqrt(2 / (128 * 9))),
        ("densenet121", "classifier.weight", 1 / math.sqrt(3 * 1024)),
        ("mobilenetv2", "features.17.conv.1.0.weight", math.sqrt(2 / (960 * 9))),
        ("mobilenetv2", "classifier.1.weight", 0.01),
    ],
)
def test_weights_start_as_torchvisions(name, tensor, deviation):
    network = load(name, None, None, True)
    parameters = parameters_of(network, infer_shapes(network))
    layout = Layout({tensor: parameters[tensor]})
    found = layout.initial(0)[: layout.count]
    assert found.std() == pytest.approx(deviation, rel=0.05)
    assert abs(found.mean()) < 0.1 * deviation


def test_other_starts_are_refused():
    for make in (lambda: Convolution(4, 3, initial="glorot"), lambda: Dense(4, initial="zeros")):
        with pytest.raises(UserError, match="initial: expected one of he, he_out, normal, uniform"):
            make()


def test_only_some_drop_out():
    dropping = [
        n
        for n in NAMES
        if any(isinstance(v.layer, Dropout) for v in load(n, None, None, True).nodes)
    ]
    assert dropping == ["vgg11", "vgg13", "vgg16", "vgg19", "alexnet", "mobilenetv2"]


def test_defaults_are_the_command_lines():
    assert load("lenet", None, None, True).defaults == {
        "batch_size": 64,
        "weight_decay": 0.0,
        "data": "digits",
    }
    assert load("vgg19", None, None, True).defaults["weight_decay"] == 5e-4
    assert load("resnet34", None, None, True).defaults["weight_decay"] == 1e-4
    assert load("resnet34", None, None, True).defaults["batch_size"] == 256
    assert load("resnet34", None, None, True).defaults["data"] == "synthetic"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        UserError,
        match=r"unknown network 'resnet51': did you mean resnet\d+\? known are lenet, vgg11",
    ):
        load("resnet51", None, None, True)


@pytest.mark.parametrize(
    ("shape", "classes"), [((28, 28), 10), ((0, 28, 28), 10), ((1, 28, 28), 0)]
)
def test_impossible_sizes_are_refused(shape, classes):
    with pytest.raises(UserError, match="lenet: expected"):
        load("lenet", shape, classes, True)


def test_a_deeper_vgg_begins_with_the_convolutions_of_each_stage(tensors):
    """Simonyan and Zisserman, section 3.1, with the later stages too."""
    ours, theirs = (tensors(load(name, None, None, True)) for name in ("vgg16", "vgg11"))
    found = counterparts("vgg16", theirs)
    assert found and found[0] == "vgg11"
    names = found[1]
    assert {int(mine.split(".")[1]): int(its.split(".")[1]) for mine, its in names.items()
            if mine.startswith("features") and mine.endswith("weight")} == {
        0: 0, 5: 3, 10: 6, 12: 8, 17: 11, 19: 13, 24: 16, 26: 18
    }  # fmt: skip
    assert all(ours[mine] == theirs[its] for mine, its in names.items())
    assert len(names) == len(theirs) == 22


@pytest.mark.parametrize(
    ("name", "others"), [("vgg16", "vgg16"), ("vgg16", "resnet18"), ("resnet18", "vgg11")]
)
def test_other_networks_have_no_counterparts(name, others, tensors):
    assert counterparts(name, tensors(load(others, None, None, True))) is None
