"""Convolution's three passes, by every algorithm, against sums written out in float64.

Whole numbers as data make sums exact, so equality is bit for bit; only Winograd with 4x4 outputs
has fractions that round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from blocks import from_blocks, to_blocks
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.engine.tile import TILES
from mpitrain.job.errors import UserError
from mpitrain.layers import Convolution
from mpitrain.layers.conv import implicit, tiles, winograd_tiles
from mpitrain.layers.conv.algorithm import PASSES
from mpitrain.layers.conv.choice import candidates
from mpitrain.layers.conv.winograd import BOUND
from mpitrain.layers.layer import Pass, pair
from mpitrain.runtime.array import Array

CASES = [
    # images, C, H, W, channels, kernel, stride, padding, groups
    (1, 1, 5, 5, 1, 5, 1, 0, 1),
    (2, 3, 8, 9, 5, 3, 1, 1, 1),
    (3, 4, 17, 19, 6, 5, 2, 2, 2),
    (2, 3, 32, 32, 16, 7, 2, 3, 1),
    (2, 20, 12, 12, 50, 5, 1, 0, 1),
    (2, 64, 14, 14, 64, 1, 1, 0, 1),
    (2, 64, 14, 14, 32, 1, 2, 0, 1),
    (2, 33, 28, 28, 65, 3, 1, 1, 1),
    (3, 6, 11, 7, 9, (3, 2), (2, 3), (1, 0), 3),
    (2, 16, 7, 7, 32, 3, 2, 1, 1),
    (1, 3, 45, 47, 8, 11, 4, 2, 1),
    (2, 9, 10, 10, 9, 3, 3, 2, 9),
    (2, 3, 6, 5, 4, 1, 1, 1, 1),
    (2, 4, 9, 9, 6, 3, 4, 1, 2),
    (2, 5, 6, 7, 3, 3, 1, 2, 1),
    (2, 32, 2, 1, 32, 1, 1, 0, 1),
    (1, 16, 5, 5, 16, 5, 1, 4, 1),
    (2, 3, 6, 3, 70, (4, 3), (3, 2), (2, 0), 1),
    (40, 48, 7, 7, 40, 3, 1, 1, 1),
    (2, 128, 3, 5, 256, 1, 1, 0, 1),
    (2, 256, 4, 5, 128, 1, 2, 0, 1),
    (2, 40, 15, 14, 40, 3, 1, 1, 40),
    (3, 33, 9, 17, 33, 3, 2, 1, 33),
    (2, 3, 23, 10, 3, 5, 2, 2, 3),
    (1, 32, 2, 1, 32, 3, 1, 1, 32),
    (2, 24, 9, 8, 48, 3, 1, 1, 8),
    (2, 64, 6, 6, 32, 3, 2, 1, 2),
    (2, 12, 5, 6, 36, 3, 1, 1, 12),
    (2, 36, 6, 5, 12, 1, 2, 0, 12),
]
SPARE, GUARD = 1, 77.0


def columns(
    x: NDArray[Any],
    r: int,
    s: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    p: int,
    q: int,
) -> NDArray[Any]:
    """Every filter position's view of the padded input, (N, C, R, S, P, Q)."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    found = np.zeros((*x.shape[:2], r, s, p, q))
    for i in range(r):
        for j in range(s):
            found[:, :, i, j] = padded[
                :, :, i : i + stride[0] * p : stride[0], j : j + stride[1] * q : stride[1]
            ][:, :, :p, :q]
    return found


def reference(
    case: Any, x: NDArray[Any], weight: NDArray[Any], dy: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """y without bias, dx and dweight, group by group."""
    _, channels_in, h, w, channels, _, stride, padding, groups = case
    (sh, sw), (ph, pw) = pair(stride, ""), pair(padding, "")
    (r, s), (p, q) = weight.shape[2:], dy.shape[2:]
    view = columns(x, r, s, (sh, sw), (ph, pw), p, q)
    y, dweight, dview = np.zeros(dy.shape), np.zeros(weight.shape), np.zeros(view.shape)
    for group in range(groups):
        ks = slice(group * channels // groups, (group + 1) * channels // groups)
        cs = slice(group * channels_in // groups, (group + 1) * channels_in // groups)
        y[:, ks] = np.einsum("kcrs,ncrspq->nkpq", weight[ks], view[:, cs], optimize=True)
        dweight[ks] = np.einsum("nkpq,ncrspq->kcrs", dy[:, ks], view[:, cs], optimize=True)
        dview[:, cs] = np.einsum("kcrs,nkpq->ncrspq", weight[ks], dy[:, ks], optimize=True)
    dx = np.zeros((*x.shape[:2], h + 2 * ph, w + 2 * pw))
    for i in range(r):
        for j in range(s):
            dx[:, :, i : i + sh * p : sh, j : j + sw * q : sw] += dview[:, :, i, j]
    return y, dx[:, :, ph : ph + h, pw : pw + w], dweight


def check_the_three_passes(
    device: Engine, case: Any, with_bias: bool = True, algorithm: str = ""
) -> None:
    """y, dx, and dweight and dbias of two backward passes that add up, on a batch smaller than the
    arrays."""
    images, channels_in, h, w, channels, kernel, stride, padding, groups = case
    shape = (channels_in, h, w)
    layer = Convolution(channels, kernel, stride, padding, groups, bias=with_bias)

    def close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
        exact = algorithm != "winograd4"
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0 if exact else BOUND * wanted.std())

    assert set(layer.parameters((channels_in, h, w))) == (
        {"weight", "bias"} if with_bias else {"weight"}
    )
    random = np.random.default_rng(0)

    def whole(*extents: int) -> NDArray[np.float32]:
        return random.integers(-3, 4, extents).astype(np.float32)

    weight, bias = whole(*layer.parameters(shape)["weight"].shape), whole(channels)
    x, dy = whole(images + SPARE, *shape), whole(images + SPARE, *layer.output_shape(shape))
    layer.forced = dict.fromkeys(PASSES, algorithm) if algorithm else {}
    layer.build(device, shape)
    layer.weight, layer.bias = device.upload(weight), device.upload(bias)
    layer.dweight, layer.dbias = (
        device.upload(np.full(weight.shape, GUARD, np.float32)),
        device.upload(bias),
    )
    # What is in scratch from other layers must not matter.
    layer.scratch = device.upload(
        np.full(max(1, layer.workspace(images, shape)), np.nan, np.float32)
    )

    def lay(values: NDArray[Any]) -> Array:
        laid = to_blocks(values, device.format)
        laid[images:] = GUARD
        return device.upload(laid)

    device_x, device_dy = lay(x), lay(dy)
    y, dx = lay(np.full(dy.shape, GUARD, np.float32)), lay(np.full(x.shape, GUARD, np.float32))

    layer.forward(Pass(images), y, device_x)
    layer.backward(Pass(images), [dx], device_dy, [device_x], y)
    layer.backward(Pass(images, accumulate=True), [None], device_dy, [device_x], y)

    want_y, want_dx, want_dweight = reference(case, x[:images], weight, dy[:images])
    close(from_blocks(y.download()[:images], channels), want_y + with_bias * bias[:, None, None])
    close(from_blocks(dx.download()[:images], channels_in), want_dx)
    close(layer.dweight.download(), 2 * want_dweight)
    want_dbias = 2 * dy[:images].sum(axis=(0, 2, 3)) if with_bias else bias
    np.testing.assert_array_equal(layer.dbias.download(), want_dbias)
    assert (y.download()[images:] == GUARD).all() and (dx.download()[images:] == GUARD).all()


def algorithms(device: Engine, case: Any) -> list[str]:
    _, channels_in, h, w, channels, kernel, stride, padding, groups = case
    geometry = Convolution(channels, kernel, stride, padding, groups).geometry((channels_in, h, w))
    names = {what: list(candidates(device, geometry, what)) for what in PASSES}
    assert names["forward"] == names["backward data"] == names["backward filter"]
    return names["forward"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_three_passes_are_right_by_every_algorithm(device: Engine, case: Any) -> None:
    for algorithm in algorithms(device, case):
        check_the_three_passes(device, case, algorithm=algorithm)


@pytest.mark.parametrize("case", [CASES[7], CASES[10], CASES[18]], ids=str)
@pytest.mark.parametrize("splits", [2, 3])
def test_a_split_depth_adds_up(
    device: Engine, monkeypatch: pytest.MonkeyPatch, case: Any, splits: int
) -> None:
    """On GPUs, where there are few tiles and much depth; parts need not be of one size."""
    monkeypatch.setattr(tiles, "splits_of", lambda *rest: splits)
    monkeypatch.setattr(winograd_tiles, "splits_of", lambda *rest: splits)
    monkeypatch.setattr(
        winograd_tiles, "tail_of", lambda device, tile, many, steps: (max(0, many - 2), 2)
    )
    names = {*algorithms(device, case)} - {"implicit"} if not device.long_items else set()
    for algorithm in names:
        check_the_three_passes(device, case, algorithm=algorithm)
    assert bool(names) == (not device.long_items)


def test_every_algorithm_is_among_those_tried(device: Engine) -> None:
    wanted = {
        "grouped",
        "implicit",
        "winograd2",
        "winograd4",
        *(("direct",) if device.long_items else TILES),
    }
    assert {name for case in CASES for name in algorithms(device, case)} == wanted


def test_an_algorithm_that_cannot_is_not_forced(device: Engine) -> None:
    layer = Convolution(4, 5)
    layer.forced = {"forward": "winograd4"}
    with pytest.raises(ValueError, match="forward: no algorithm 'winograd4'"):
        layer.build(device, (3, 8, 8))


def test_a_relu_taken_on_changes_forward_and_backward(device: Engine) -> None:
    """The same as a ReLU of its own, for every algorithm; values are whole, so equality is bit for
    bit."""
    random, shape, images = np.random.default_rng(0), (5, 7, 6), 2
    x, dy = (random.integers(-3, 4, (images, c, 7, 6)).astype(np.float32) for c in (5, 20))
    weight, bias = (random.integers(-3, 4, s).astype(np.float32) for s in ((20, 5, 3, 3), (20,)))
    found: dict[str, list[NDArray[Any]]] = {}
    for name in (
        ("direct", "winograd2", "implicit")
        if device.long_items
        else (*TILES, "winograd2", "implicit")
    ):
        layer = Convolution(20, 3, padding=1)
        layer.rectify, layer.forced = True, dict.fromkeys(PASSES, name)
        layer.build(device, shape)
        layer.weight, layer.bias = device.upload(weight), device.upload(bias)
        layer.dweight, layer.dbias = device.empty(weight.shape), device.empty(bias.shape)
        layer.scratch = device.empty((layer.workspace(images, shape),))
        device_x, device_dy = (device.upload(to_blocks(each, device.format)) for each in (x, dy))
        y, dx = device.empty(device_dy.shape), device.empty(device_x.shape)
        layer.forward(Pass(images), y, device_x)
        layer.backward(Pass(images), [dx], device_dy, [device_x], y)
        found[name] = [
            from_blocks(y.download(), 20),
            from_blocks(dx.download(), 5),
            layer.dweight.download(),
            layer.dbias.download(),
        ]
    case = (images, *shape, 20, 3, 1, 1, 1)
    plain = reference(case, x, weight, dy)[0] + bias[:, None, None]
    gated = dy * (plain > 0)
    _, dx_wanted, dweight_wanted = reference(case, x, weight, gated)
    wanted = [np.maximum(plain, 0), dx_wanted, dweight_wanted, gated.sum(axis=(0, 2, 3))]
    for name, values in found.items():
        for got, want in zip(values, wanted, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=name)


def test_without_a_bias_none_is_added_and_none_learnt(device: Engine) -> None:
    check_the_three_passes(device, (2, 3, 8, 9, 5, 3, 1, 1, 1), with_bias=False)


@pytest.mark.parametrize("groups", [1, 2])
def test_products_of_a_few_images_at_a_time_add_up(
    device: Engine, monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    """Five images, at most two at once: two, two and one."""
    monkeypatch.setattr(implicit, "PACKED_LIMIT", 2 * (6 // groups) * 8 * 7)
    monkeypatch.setattr(implicit, "COPIED_LIMIT", 2 * (4 + 6) * 8 * 7)
    check_the_three_passes(device, (5, 4, 8, 7, 6, 3, 1, 1, groups), algorithm="implicit")


def test_the_gradients_are_the_slopes_of_the_sums(device: Engine, numerical: Any) -> None:
    random, shape = np.random.default_rng(0), (4, 5, 4)
    layer = Convolution(6, (3, 2), (2, 1), (1, 0), groups=2, bias=False)
    weight, x = random.normal(size=(6, 2, 3, 2)), random.normal(size=(2, *shape))
    dy = random.normal(size=(2, *layer.output_shape(shape)))

    def y(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
        return reference((2, 4, 5, 4, 6, (3, 2), (2, 1), (1, 0), 2), x, weight, dy)[0]

    layer.build(device, shape)
    device_x, device_dy = (
        device.upload(to_blocks(each.astype(np.float32), device.format)) for each in (x, dy)
    )
    layer.weight = device.upload(weight.astype(np.float32))
    layer.dweight, dx = device.empty(weight.shape), device.empty(device_x.shape)
    layer.scratch = device.empty((max(1, layer.workspace(2, shape)),))
    layer.backward(Pass(2), [dx], device_dy, [device_x], device_dy)
    np.testing.assert_allclose(
        from_blocks(dx.download(), 4),
        numerical(lambda at: y(at, weight), x, dy),
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        layer.dweight.download(), numerical(lambda at: y(x, at), weight, dy), rtol=1e-4, atol=1e-5
    )


def test_work_and_the_spread_of_first_weights_are_counted_by_a_filters_own_channels() -> None:
    layer = Convolution(8, (3, 2), groups=4, bias=False)
    assert layer.parameters((12, 9, 9))["weight"].fan == 3 * 3 * 2
    assert layer.flops((12, 9, 9)) == 2 * 8 * (3 * 3 * 2) * (7 * 8)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UserError, match="11x11 filter does not fit into an input of 8x8"):
        Convolution(4, 11).output_shape((3, 8, 8))
    with pytest.raises(UserError, match="input has 5 channels, which 2 groups cannot share"):
        Convolution(4, 3, groups=2).output_shape((5, 8, 8))
    with pytest.raises(UserError, match="5 channels cannot be divided into 2 groups"):
        Convolution(5, 3, groups=2)
    with pytest.raises(UserError, match="takes images"):
        Convolution(4, 3).output_shape((800,))
    with pytest.raises(UserError, match="at least 1"):
        Convolution(0, 3)
