"""The child process of `mpitrain tune`: measures one candidate for each line of JSON that comes in,
and answers with one.

Results are checked at some places, picked anew for each problem, against sums in float64.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device
from mpitrain.job.cut import round_up
from mpitrain.job.errors import MpitrainError
from mpitrain.layers.conv.choice import candidates
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.runtime.array import Array

PLACES = 96
"""Values of each result that are checked."""

SECONDS = 0.25
"""How long a candidate is run, three times at least; the fastest run counts, as the others have
been disturbed."""

Values = NDArray[Any]


def main(device_name: str) -> None:
    """Answer questions until there are no more."""
    device = open_device(device_name)
    for line in sys.stdin:
        question = json.loads(line)
        numbers = question["geometry"]
        numbers["stride"], numbers["padding"] = tuple(numbers["stride"]), tuple(numbers["padding"])
        try:
            with device.scope():
                answer = measure(
                    device,
                    question["what"],
                    Geometry(**numbers),
                    question["way"],
                    question["images"],
                )
        except MpitrainError as error:
            answer = {"failed": str(error)}
        print(json.dumps(answer), flush=True)


def measure(device: Engine, what: Any, g: Geometry, way: str, images: int) -> dict[str, Any]:
    """Seconds of the fastest run, and the largest error in standard deviations of the result."""
    random = np.random.default_rng(0)
    algorithm = candidates(device, g, what)[way].make(way, device, g, what)
    x, y, weight = (
        random.standard_normal(shape, np.float32)
        for shape in (
            (images, g.groups * g.c, g.h, g.w),
            (images, g.groups * g.k, g.p, g.q),
            (g.groups * g.k, g.c, g.r, g.s),
        )
    )
    scratch = device.empty((max(1, algorithm.workspace(images)),))
    device_x, device_y, device_weight = (
        _upload(device, x),
        _upload(device, y),
        device.upload(weight),
    )
    if what == "forward":
        run = partial(
            algorithm.run, device_y, device_x, device_weight, None, False, images, scratch
        )
        found, of = device_y, y.shape
    elif what == "backward data":
        run = partial(algorithm.run, device_x, device_y, device_weight, images, scratch)
        found, of = device_x, x.shape
    else:
        run = partial(algorithm.run, device_weight, device_y, device_x, False, images, scratch)
        found, of = device_weight, weight.shape
    run()
    places = [tuple(int(random.integers(extent)) for extent in of) for _ in range(PLACES)]
    places += [(0,) * 4, tuple(extent - 1 for extent in of)]
    result = _download(device, found, of)
    wanted = np.array([_expected(what, g, x, y, weight, place) for place in places])
    error = np.abs([result[place] for place in places] - wanted).max() / max(wanted.std(), 1e-30)
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < SECONDS:
        begin = time.perf_counter()
        run()
        device.finish()
        seconds.append(time.perf_counter() - begin)
    return {"seconds": min(seconds), "error": float(error)}


def _expected(
    what: str, g: Geometry, x: Values, y: Values, weight: Values, place: tuple[int, ...]
) -> float:
    """One value of the result, summed in float64."""
    (u, v), (pad_h, pad_w) = g.stride, g.padding
    total = 0.0
    if what == "backward filter":
        k, c, r, s = place
        padded = np.pad(x[:, k // g.k * g.c + c], ((0, 0), (pad_h, pad_h + u), (pad_w, pad_w + v)))
        seen = padded[:, r : r + u * g.p : u, s : s + v * g.q : v][:, : g.p, : g.q]
        return float(np.sum(seen.astype(np.float64) * y[:, k]))
    group = place[1] // (g.k if what == "forward" else g.c)
    ins, outs = (slice(group * each, (group + 1) * each) for each in (g.c, g.k))
    for r in range(g.r):
        for s in range(g.s):
            if what == "forward":
                n, k, p, q = place
                h, w = p * u + r - pad_h, q * v + s - pad_w
                if 0 <= h < g.h and 0 <= w < g.w:
                    total += float(np.dot(weight[k, :, r, s].astype(np.float64), x[n, ins, h, w]))
            else:
                n, c, h, w = place
                (p, rest_h), (q, rest_w) = divmod(h + pad_h - r, u), divmod(w + pad_w - s, v)
                if not rest_h and not rest_w and 0 <= p < g.p and 0 <= q < g.q:
                    column = weight[outs, c % g.c, r, s].astype(np.float64)
                    total += float(np.dot(column, y[n, outs, p, q]))
    return total


def _upload(device: Engine, values: Values) -> Array:
    """Images in the device's blocks of channels."""
    n, c, h, w = values.shape
    block = device.format.block_of(c)
    whole = np.zeros((n, round_up(c, block), h, w), np.float32)
    whole[:, :c] = values
    return device.upload(
        np.ascontiguousarray(whole.reshape(n, -1, block, h, w).transpose(0, 1, 3, 4, 2))
    )


def _download(device: Engine, values: Array, shape: tuple[int, ...]) -> Values:
    """A result as (N, C, H, W), or as it is."""
    found: Values = values.download()
    if found.ndim == 4:
        return found
    planes: Values = found.transpose(0, 1, 4, 2, 3).reshape(shape[0], -1, *shape[2:])
    return planes


if __name__ == "__main__":
    main(sys.argv[1])
