"""Compare every gradient of one step with PyTorch's in float64, value by value, in one process with
both installed.

python tests/reference/against_pytorch.py lenet vgg11 resnet18
"""

from __future__ import annotations

import sys

import numpy as np
from gradients import mpitrain_gradients
from inputs import CASES, images, labels, weights
from torch_networks import shapes, step

LIMIT = 1e-4
"""Of |gradient - reference| / |reference|, for every parameter."""


def main(networks: list[str]) -> int:
    """Print each parameter's relative error; returns the exit code, 1 if any is above LIMIT."""
    worst = 0.0
    for network in networks:
        given = (images(network), labels(network), weights(network, shapes(network)))
        loss, _, expected = step(network, *given)
        our_loss, gradients = mpitrain_gradients(network, *given)
        if gradients.keys() != expected.keys():
            print(f"{network}: only one has {sorted(gradients.keys() ^ expected.keys())}")
            return 1
        print(
            f"{network}: loss {our_loss:.9f}, PyTorch {loss:.9f}, off by "
            f"{abs(our_loss - loss) / abs(loss):.1e}"
        )
        errors = {name: relative_error(gradients[name], expected[name]) for name in expected}
        for name, error in errors.items():
            print(f"  {name:28} {error:.2e}{'  ABOVE THE LIMIT' if not error <= LIMIT else ''}")
        worst = max(worst, abs(our_loss - loss) / abs(loss), *errors.values())
    print(f"worst {worst:.2e}, limit {LIMIT:.0e}")
    return 0 if worst <= LIMIT else 1


def relative_error(given: np.ndarray, expected: np.ndarray) -> float:
    """|given - expected| / |expected|, infinite where a value is not a number."""
    if given.shape != expected.shape:
        raise ValueError(f"the gradient has shape {given.shape}, PyTorch's {expected.shape}")
    error = np.linalg.norm(given.astype(np.float64) - expected) / np.linalg.norm(expected)
    return float(error) if np.isfinite(error) else float("inf")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(CASES)))
