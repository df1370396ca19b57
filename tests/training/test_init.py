"""--init takes the weights of a file that is of this network, in any of the forms that others
save."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mpitrain.job.errors import UserError
from mpitrain.training.world import World

SHAPES = {
    "conv1.weight": (20, 1, 5, 5),
    "conv1.bias": (20,),
    "conv2.weight": (50, 20, 5, 5),
    "conv2.bias": (50,),
    "fc1.weight": (500, 800),
    "fc1.bias": (500,),
    "fc2.weight": (10, 500),
    "fc2.bias": (10,),
}
MakeWorld = Callable[..., World]
Tensors = dict[str, NDArray[np.float32]]


@pytest.fixture
def tensors() -> Tensors:
    """Those of LeNet, with values that bfloat16 has."""
    draw = np.random.default_rng(0)
    return {
        name: (draw.integers(-100, 100, shape) / 128).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def begun(make_world: MakeWorld, path: Path, **options: object) -> tuple[Tensors, str]:
    """The weights with which a run begins, and what it says of them."""
    world = make_world(steps=1, init=str(path), **options)
    flat, slots = world.local.graph.weights.download(), world.local.graph.layout.slots
    weights = {
        name: flat[slot.start : slot.stop].reshape(slot.shape) for name, slot in slots.items()
    }
    drawn, partial = world.local.graph.layout.initial(0), bool(options.get("init_partial"))
    return weights, world.state.begin(0, lambda: drawn, str(path), partial)


def same(found: Tensors, wanted: Tensors) -> bool:
    return all(np.array_equal(found[name], wanted[name]) for name in wanted)


def save_bfloat16(tensors: Tensors, path: Path) -> None:
    header, at = {}, 0
    for name, values in tensors.items():
        stop = at + 2 * values.size
        header[name] = {"dtype": "BF16", "shape": values.shape, "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    halves = [(each.view(np.uint32) >> 16).astype("<u2").tobytes() for each in tensors.values()]
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(halves))


def test_bfloat16_is_read(make_world: MakeWorld, tmp_path: Path, tensors: Tensors) -> None:
    save_bfloat16(tensors, tmp_path / "w.safetensors")
    found, said = begun(make_world, tmp_path / "w.safetensors")
    assert same(found, tensors)
    assert said.endswith("w.safetensors: 8 of 8 tensors taken")


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_the_names_that_pytorchs_wrappers_make(
    make_world: MakeWorld, tmp_path: Path, tensors: Tensors, wrapper: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({f"{wrapper}{name}": values for name, values in tensors.items()}, path)
    assert same(begun(make_world, path)[0], tensors)


def test_what_does_not_fit_is_an_error_unless_that_is_asked_for(
    make_world: MakeWorld, tmp_path: Path, tensors: Tensors
) -> None:
    path = tmp_path / "w.safetensors"
    wide = np.ones((1000, 500), np.float32)
    rest = {name: tensors[name] for name in SHAPES if name != "fc2.bias"}
    save_file({**rest, "fc2.weight": wide}, path)
    with pytest.raises(UserError) as error:
        make_world(steps=1, init=str(path))
    assert str(error.value) == (
        f"--init {path}: not the tensors of lenet: fc2.weight is (1000, 500), expected (10, 500), "
        "fc2.bias is not in it, expected (10,); --init-partial takes what fits"
    )
    found, said = begun(make_world, path, init_partial=True, out=str(tmp_path / "other"))
    assert same(found, {name: tensors[name] for name in rest if name != "fc2.weight"})
    assert "6 of 8 tensors taken; drawn anew: fc2.weight is (1000, 500)" in said


def test_tensors_that_are_left_over_are_an_error_too(
    make_world: MakeWorld, tmp_path: Path, tensors: Tensors
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({**tensors, **{f"fc{n}.bias": np.ones(3, np.float32) for n in range(3, 40)}}, path)
    with pytest.raises(UserError, match=r"it has fc10.bias, it has fc11.bias, and 35 more; --init"):
        make_world(steps=1, init=str(path))


def test_another_network_is_an_error_in_any_case(make_world: MakeWorld, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"something": np.ones((3, 3), np.float32)}, path)
    with pytest.raises(UserError, match=r"conv1.weight is not in it.*and 7 more$"):
        make_world(steps=1, init=str(path), init_partial=True)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda values: values * np.float32(np.nan), "fc1.bias has values that are not finite"),
        (lambda values: values.astype(np.uint16), "fc1.bias is U16; expected one of F32"),
    ],
)
def test_values_that_are_no_weights(
    make_world: MakeWorld, tmp_path: Path, tensors: Tensors, harm: object, words: str
) -> None:
    path = tmp_path / "w.safetensors"
    assert callable(harm)
    save_file({**tensors, "fc1.bias": harm(tensors["fc1.bias"])}, path)
    with pytest.raises(UserError, match=words):
        make_world(steps=1, init=str(path))
