"""A network from what was typed: a known name, or the path of a network file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Shape
from mpitrain.network.models import alexnet, densenet, lenet, mobilenet, netfile, resnet, vgg
from mpitrain.network.network import Network

BUILDERS: dict[str, Callable[..., Network]] = {
    "lenet": lenet.build,
    **{f"vgg{depth}": partial(vgg.build, depth) for depth in vgg.REPEATS},
    **{f"resnet{depth}": partial(resnet.build, depth) for depth in resnet.BLOCKS},
    "alexnet": alexnet.build,
    **{f"densenet{depth}": partial(densenet.build, depth) for depth in densenet.BLOCKS},
    "mobilenetv2": mobilenet.build,
}
LONGEST = 80
"""Characters of a name in a sentence."""
NAMES = tuple(BUILDERS)
"""The networks that come with the package."""


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def counterparts(name: str, tensors: Collection[str]) -> tuple[str, dict[str, str]] | None:
    """Of the tensors of another network of one's family: that network's name, and under which name
    it has each tensor. None if they are no such network's, or the family needs no such names."""
    depth = name.removeprefix("vgg")
    if name not in BUILDERS or not name.startswith("vgg"):
        return None
    found = vgg.counterparts(int(depth), tensors)
    return (f"vgg{found[0]}", found[1]) if found else None


def load(
    name_or_path: str,
    input_shape: Shape | None = None,
    classes: int | None = None,
    dropout: bool = True,
) -> Network:
    """The network of that name or file, for images of `input_shape` (C, H, W) and so many classes.

    What is None is the network's own: (1, 28, 28) and 10 for lenet, (3, 224, 224) and 1000 for the
    other known ones, a file's header for a file. A known name goes before a file of the same name.
    Raises UserError for an unknown name, impossible sizes, and whatever is wrong in a file.
    """
    if input_shape is not None and (len(input_shape) != 3 or min(input_shape) < 1):
        raise UserError(
            f"{name_or_path}: expected an image shape (channels, height, width), got {input_shape}"
        )
    if classes is not None and classes < 1:
        raise UserError(f"{name_or_path}: expected at least one class, got {classes}")
    if name_or_path in BUILDERS:
        given = {"input_shape": input_shape, "classes": classes}
        sizes = {key: value for key, value in given.items() if value is not None}
        return BUILDERS[name_or_path](**sizes, dropout=dropout)
    path = Path(name_or_path)
    if path.suffix == ".toml" or _is_file(path):
        return netfile.read(path, input_shape, classes, dropout=dropout)
    close = difflib.get_close_matches(name_or_path.lower(), NAMES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"unknown network {_short(name_or_path)!r}: {hint}known are {', '.join(NAMES)}, or a "
        "network file (.toml)"
    )
