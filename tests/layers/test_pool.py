"""Pooling against loops over windows in NumPy, whose rules are PyTorch's."""

import numpy as np
import pytest

from mpitrain.job.errors import UserError
from mpitrain.layers.pool import AveragePool, GlobalAveragePool, MaxPool

# kernel, stride, padding, ceil, (H, W)
CASES = [
    (1, 1, 0, False, (3, 4)),
    (2, None, 0, False, (8, 8)),
    (2, 2, 0, False, (24, 24)),
    (2, 2, 0, True, (7, 9)),
    (2, 1, 1, False, (5, 19)),
    (3, 2, 1, False, (12, 23)),
    (3, 2, 0, True, (8, 14)),
    (3, 1, 1, False, (6, 20)),
    (3, 3, 1, True, (10, 11)),
    (2, 3, 1, True, (9, 10)),
    (5, 3, 2, True, (13, 31)),
    ((2, 3), (3, 1), (1, 0), True, (6, 9)),
    (4, 2, 2, False, (1, 2)),
    (7, None, 0, False, (7, 7)),
    (3, 2, 1, True, (65, 66)),
]


def windows(x, kernel, stride, padding, ceil):
    """Each window of the last two axes: its place (p, q), its slices of x, and its size within
    input and padding."""
    (R, S), (sh, sw), (ph, pw) = kernel, stride, padding

    def starts(extent, window, step, edge):
        room = extent + 2 * edge - window
        count = (-(-room // step) if ceil else room // step) + 1
        return [at for at in range(-edge, count * step - edge, step) if not ceil or at < extent]

    H, W = x.shape[-2:]
    for p, h in enumerate(starts(H, R, sh, ph)):
        for q, w in enumerate(starts(W, S, sw, pw)):
            size = (min(h + R, H + ph) - h) * (min(w + S, W + pw) - w)
            yield (p, q), (..., slice(max(h, 0), h + R), slice(max(w, 0), w + S)), size


def sizes(case):
    return tuple(
        (v, v) if isinstance(v, int) else v
        for v in (case[0], case[0] if case[1] is None else case[1], case[2])
    )


def shape_of_output(x, case):
    (p, q), *_ = list(windows(x, *sizes(case), case[3]))[-1]
    return (*x.shape[:-2], p + 1, q + 1)


def max_pool(x, case):
    y = np.empty(shape_of_output(x, case))
    for place, window, _ in windows(x, *sizes(case), case[3]):
        y[(..., *place)] = x[window].max(axis=(-2, -1))
    return y


def max_pool_backward(x, dy, case):
    dx = np.zeros(x.shape)
    for place, window, _ in windows(x, *sizes(case), case[3]):
        seen = x[window].reshape(*x.shape[:-2], -1)
        first = (np.arange(seen.shape[-1]) == seen.argmax(axis=-1)[..., None]).reshape(
            x[window].shape
        )
        dx[window] += first * dy[(..., *place)][..., None, None]
    return dx


def average_pool(x, case, count_padding):
    y = np.empty(shape_of_output(x, case))
    for place, window, size in windows(x, *sizes(case), case[3]):
        y[(..., *place)] = x[window].sum(axis=(-2, -1)) / (
            size if count_padding else np.prod(x[window].shape[-2:])
        )
    return y


def average_pool_backward(x, dy, case, count_padding):
    dx = np.zeros(x.shape)
    for place, window, size in windows(x, *sizes(case), case[3]):
        divisor = size if count_padding else np.prod(x[window].shape[-2:])
        dx[window] += dy[(..., *place)][..., None, None] / divisor
    return dx


def batch(case, equals=False, channels=5):
    """Images of whole numbers, so that sums are exact: all different, or with many equals."""
    random = np.random.default_rng(7)
    shape = (3, channels, *case[4])
    x = (
        random.integers(5, size=shape)
        if equals
        else random.permutation(int(np.prod(shape))).reshape(shape)
    )
    return x.astype(np.float64)


@pytest.mark.parametrize("equals", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pool_and_its_gradient(bench, case, equals):
    x = batch(case, equals)
    trial = bench(MaxPool(*case[:4]), x.shape[1:])
    expected = max_pool(x, case)
    assert (3, *trial.output) == expected.shape
    np.testing.assert_array_equal(trial.forward(x), expected)
    dy = np.random.default_rng(1).integers(-9, 9, size=expected.shape)
    np.testing.assert_array_equal(trial.backward(dy)[0], max_pool_backward(x, dy, case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_pool_can_do_the_way_back_of_a_relu_before_it(bench, case):
    x = np.maximum(batch(case), 0)
    layer = MaxPool(*case[:4])
    assert layer.can_gate() and not MaxPool(16).can_gate()
    layer.gates = True
    trial = bench(layer, x.shape[1:])
    np.testing.assert_array_equal(trial.forward(x), max_pool(x, case))
    dy = np.random.default_rng(1).integers(-9, 9, size=shape_of_output(x, case))
    expected = np.where(x > 0, max_pool_backward(x, dy, case), 0)
    np.testing.assert_array_equal(trial.backward(dy)[0], expected)


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_average_pool_and_its_gradient(bench, case, count_padding):
    x = batch(case)
    trial = bench(AveragePool(*case[:4], count_padding=count_padding), x.shape[1:])
    expected = average_pool(x, case, count_padding)
    assert (3, *trial.output) == expected.shape
    np.testing.assert_allclose(trial.forward(x), expected, rtol=1e-5)
    dy = np.random.default_rng(1).normal(size=expected.shape)
    dx = average_pool_backward(x, dy, case, count_padding)
    np.testing.assert_allclose(trial.backward(dy)[0], dx, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 1, 1), (70, 7, 7), (2, 5, 33)])
def test_global_average_is_each_channels_mean(bench, shape):
    x = np.random.default_rng(0).normal(size=(3, *shape))
    trial = bench(GlobalAveragePool(), shape)
    assert trial.output == (shape[0], 1, 1)
    np.testing.assert_allclose(
        trial.forward(x), x.mean(axis=(2, 3), keepdims=True), rtol=1e-5, atol=1e-6
    )
    dy = np.random.default_rng(1).normal(size=(3, shape[0], 1, 1))
    np.testing.assert_allclose(
        trial.backward(dy)[0], np.broadcast_to(dy, x.shape) / (shape[1] * shape[2]), rtol=1e-5
    )


@pytest.mark.parametrize("case", [(2, 2, 0, True, (3, 5)), (3, 2, 1, False, (5, 4))], ids=str)
def test_the_gradients_are_the_slopes(bench, case, numerical):
    x = batch(case, channels=2)
    dy = np.random.default_rng(1).normal(size=shape_of_output(x, case))
    trial = bench(MaxPool(*case[:4]), x.shape[1:])
    trial.forward(x)
    np.testing.assert_allclose(
        trial.backward(dy)[0], numerical(lambda x: max_pool(x, case), x, dy), atol=1e-5
    )
    trial = bench(AveragePool(*case[:4]), x.shape[1:])
    trial.forward(x)
    expected = numerical(lambda x: average_pool(x, case, True), x, dy)
    np.testing.assert_allclose(trial.backward(dy)[0], expected, atol=1e-5)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_windows_without_a_largest_still_send_their_gradient_inside(bench, value):
    x = np.full((3, 2, 9, 21), value)
    trial = bench(MaxPool(3, 2, 1), (2, 9, 21))
    np.testing.assert_array_equal(trial.forward(x), np.full((3, 2, 5, 11), value))
    (dx,) = trial.backward(np.ones((3, 2, 5, 11)))
    assert dx.sum() == 3 * 2 * 5 * 11


def test_a_nan_wins_its_window(bench):
    x = np.arange(3 * 8 * 16, dtype=np.float64).reshape(3, 1, 8, 16)
    x[:, :, 0, 0] = x[:, :, 5, 9] = np.nan
    y = bench(MaxPool(2), (1, 8, 16)).forward(x)
    assert np.isnan(y[:, 0, 0, 0]).all()
    assert np.isnan(y[:, 0, 2, 4]).all()
    assert np.isnan(y).sum() == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 0}, "kernel: expected at least 1, got 0"),
        ({"kernel": (2, 3, 4)}, "kernel: expected one whole number or two"),
        ({"kernel": 2, "stride": 0}, "stride: expected at least 1, got 0"),
        ({"kernel": 2, "padding": 2}, "padding: expected 0 to half the kernel 2, got 2"),
        ({"kernel": 2, "padding": -1}, "padding: expected 0 to half the kernel 2, got -1"),
        ({"kernel": 17}, "kernel: expected a window of at most 256 values, got 17"),
    ],
)
def test_impossible_windows_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MaxPool(**options)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(
        UserError, match=r"window of \(3, 3\) is larger than the padded input of \(2, 4\)"
    ):
        MaxPool(3).output_shape((8, 2, 4))
    for layer in (MaxPool(2), AveragePool(2), GlobalAveragePool()):
        with pytest.raises(UserError, match=r"pools \(channels, height, width\), got \(120,\)"):
            layer.output_shape((120,))


def test_options_stay_as_they_were_given():
    layer = AveragePool((2, 3), stride=None, padding=1, ceil=True, count_padding=False)
    assert (layer.kernel, layer.stride, layer.padding, layer.ceil, layer.count_padding) == (
        (2, 3), None, 1, True, False,
    )  # fmt: skip
