"""Find the draw of images in which no ReLU and no pool is near a tie, for Case.draw (choose_draw.py
DRAWS NETWORK...)."""

from __future__ import annotations

import sys

from inputs import images, weights
from torch_networks import load, margin, shapes


def main(draws: int, networks: list[str]) -> None:
    for network in networks:
        module = load(network, weights(network, shapes(network)))
        margins = {draw: margin(module, images(network, draw)) for draw in range(draws)}
        best = max(margins, key=margins.__getitem__)
        print(
            f"{network}: draw {best} stays {margins[best]:.1e} away from ties, draw 0 "
            f"{margins[0]:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
