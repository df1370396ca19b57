"""Open the data that --data names: a word or a path in, a Dataset out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mpitrain.data import cifar, cifar_python, digits, folder, idx, npz, synthetic, tars, well_known
from mpitrain.data.bad import Bad
from mpitrain.data.dataset import MAX_CLASSES, Dataset, Shape, Split
from mpitrain.job.config import is_made_up
from mpitrain.job.errors import UserError

__all__ = ["Dataset", "Shape", "Split", "open_source"]


def open_source(
    spec: str,
    *,
    shape_hint: Shape,
    classes: int | None = None,
    seed: int = 0,
    bad: Bad | None = None,
    layout: str | None = None,
    side: int | None = None,
    may_fetch: bool = True,
) -> Dataset:
    """`digits`, `synthetic`, `synthetic:COUNT`, a name of `well_known`, or the path of an .npz
    file, of tar shards or of an IDX, CIFAR or image folder.

    shape_hint (C, H, W) is the shape of synthetic images and the one folder images are brought to;
    the others keep their own. classes: unless given, the labels' maximum + 1 (CIFAR: 10 or 100,
    folders: their number, synthetic: 1000). bad: what may be left out, nothing unless given.
    layout: of an .npz's images. side: pixels that a photo's shorter side is scaled to before a part
    around its centre is taken; as few as that part needs, unless given. may_fetch: a data set of
    `well_known` that is not here. Raises UserError, naming the file, when the data cannot be what
    it says.
    """
    bad = bad or Bad()
    if classes is not None and not 1 <= classes <= MAX_CLASSES:
        raise UserError(f"{classes} classes; expected 1 to {MAX_CLASSES}")
    if seed < 0:
        raise UserError(f"the seed is {seed}; expected 0 or more")
    if layout and not spec.lower().endswith(".npz"):
        raise UserError(f"--layout {layout}: only an .npz has a layout to name, got {spec}")
    if spec == "digits":
        return digits.open_digits(classes=classes)
    if is_made_up(spec):
        return synthetic.open_synthetic(spec, shape=shape_hint, classes=classes, seed=seed)
    if spec in well_known.KNOWN:
        return open_known(spec, classes, bad, may_fetch)
    path = Path(spec)
    try:
        if spec and path.is_file():
            if tars.named(spec):
                return tars.open_shards(spec, shape=shape_hint, classes=classes, bad=bad, side=side)
            return open_file(path, classes, bad, layout)
        if spec and path.is_dir():
            return open_folder(path, shape_hint, classes, bad, side)
        if tars.named(spec) and "{" in spec:
            return tars.open_shards(spec, shape=shape_hint, classes=classes, bad=bad, side=side)
    except OSError as error:
        raise UserError(f"{error.filename or spec}: cannot be read ({error.strerror})") from error
    raise UserError(
        f"data {spec!r}: expected digits, synthetic, {', '.join(well_known.KNOWN)}, or the path "
        "of a file or folder; there is no such path"
    )


def open_known(name: str, classes: int | None, bad: Bad, may_fetch: bool) -> Dataset:
    """A data set by its name; says where it was found, or that it is fetched."""
    path = well_known.find(name)
    if path is None:
        if not may_fetch:
            raise UserError(f"data {name}: it is not on this machine")
        path = well_known.fetch(name, bad.say, bad.alive)
    bad.say(f"data {name}: in {path}")
    data = open_source(str(path), shape_hint=(1, 1, 1), classes=classes, bad=bad)
    names = well_known.KNOWN[name].classes
    return replace(data, name=name, class_names=names if data.classes == len(names) else ())


def open_file(path: Path, classes: int | None, bad: Bad, layout: str | None = None) -> Dataset:
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path}: expected an .npz file, a .tar or a folder, got none of them")
    return npz.open_npz(path, classes=classes, bad=bad, layout=layout)


def open_folder(
    path: Path, shape_hint: Shape, classes: int | None, bad: Bad, side: int | None
) -> Dataset:
    if idx.found(path):
        return idx.open_folder(path, classes=classes, bad=bad)
    if cifar.found(path):
        return cifar.open_folder(path, classes=classes, bad=bad)
    if cifar_python.found(path):
        return cifar_python.open_folder(path, classes=classes, bad=bad)
    if tars.found(path):
        return tars.open_shards(str(path), shape=shape_hint, classes=classes, bad=bad, side=side)
    if folder.found(path):
        return folder.open_folder(path, shape=shape_hint, classes=classes, bad=bad, side=side)
    raise UserError(
        f"{path}: expected IDX files (train-images-idx3-ubyte), CIFAR files (data_batch_1.bin, "
        "train.bin, data_batch_1, train), shards (.tar) or class folders with images, found "
        "none of them"
    )
