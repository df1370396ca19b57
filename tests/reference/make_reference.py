"""Write the references: one step of each network in PyTorch, float64 (python
tests/reference/make_reference.py)."""

from __future__ import annotations

import sys

import torch
from compare import Reference, save, summarise
from inputs import CASES, images, labels, weights
from torch_networks import shapes, step


def main(networks: list[str]) -> None:
    for network in networks:
        given = (images(network), labels(network), weights(network, shapes(network)))
        loss, scores, gradients = step(network, *given)
        summaries = {name: summarise(name, gradient) for name, gradient in gradients.items()}
        _, _, single = step(network, *given, dtype=torch.float32)
        worst, error = Reference(network, loss, scores, summaries, 0.0).worst_error(single)
        path = save(Reference(network, loss, scores, summaries, error))
        size = path.stat().st_size / 1024
        print(
            f"{network}: loss {loss:.9f}, PyTorch's float32 is off by {error:.1e} ({worst}); "
            f"{path.name} {size:.0f} KiB"
        )


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
