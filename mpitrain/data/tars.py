"""WebDataset shards: tar files with an image and a `.cls` file a sample in, a Dataset out.

A sample is a run of members whose names are equal up to the first dot: `n01/0001.jpg` and
`n01/0001.cls`, which holds the class number in digits. Shards are read once, header by header, to
find where images lie; images are then read by number, in any order. Nothing is unpacked, and names
in a tar are never used as paths.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np

from mpitrain.data.bad import Bad
from mpitrain.data.dataset import MAX_CLASSES, Dataset, Labels, Shape, wrong_labels
from mpitrain.data.decoded import DecodedSplit
from mpitrain.data.folder import usual_mean, usual_std
from mpitrain.data.picture import SUFFIXES
from mpitrain.data.tar import Member, members
from mpitrain.job.config import whole
from mpitrain.job.errors import UserError

LONGEST_LABEL = 32
MOST_SHARDS = 1 << 16
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
SPLIT = re.compile(r"(?:^|[-_.])(train|val|valid|validation|test)(?=[-_.]|$)")
"""A word in a shard's name that says of which split it is."""
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def found(path: Path) -> bool:
    """Whether the folder holds shards, or a folder `train` that does."""
    return bool(shards_in(path) or shards_in(path / "train"))


def named(spec: str) -> bool:
    """Whether --data names shards: a .tar, or a pattern of several such as
    shard-{0000..0007}.tar."""
    return spec.lower().endswith((".tar", *PACKED))


def open_shards(
    spec: str, *, shape: Shape, classes: int | None, bad: Bad | None = None, side: int | None = None
) -> Dataset:
    """A .tar, a pattern of several, or a folder of them; classes: the labels' maximum + 1 unless
    given.

    Shards with the word `train` in their names (or in the folder `train`) are there to train with;
    those with `val`, else `test`, to test with. Where no name has `train`, all are there to train
    with. Images become uint8 of shape (C is 1 or 3); side: as of DecodedSplit. Raises UserError
    naming the shard that is missing, damaged or no tar, and the sample that lacks its image or its
    class, where `bad` does not leave it out.
    """
    bad = bad or Bad()
    if shape[0] not in (1, 3):
        raise UserError(f"{spec}: images have 1 or 3 channels; the network expects {shape[0]}")
    splits = by_split(spec)
    opened = [
        open_split(files, shape, classes, bad, side)
        for files in (splits["train"], splits["val"] or splits["test"])
        if files
    ]
    train, test = opened[0], opened[1] if len(opened) > 1 else None
    if bad.most:
        train = train.without(train.first_look())
        test = test and test.without(test.first_look())
    highest = max(int(split.labels.max()) for split in (train, test or train))
    return Dataset(
        Path(spec).resolve().name,
        shape,
        classes or highest + 1,
        train,
        test,
        np.array(usual_mean(shape[0]), np.float32),
        np.array(usual_std(shape[0]), np.float32),
        bad=bad,
    )


def by_split(spec: str) -> dict[str, list[Path]]:
    """The shards of `train`, `val` and `test`, in the order of their names."""
    path = Path(spec)
    if path.is_dir() and not shards_in(path):
        return {name: shards_in(path / name) for name in ("train", "val", "test")}
    files = shards_in(path) if path.is_dir() else expanded(spec)
    found: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    words = [SPLIT.search(file.stem) for file in files]
    if not any(word and word[1] == "train" for word in words):
        return {**found, "train": files}
    for file, word in zip(files, words, strict=True):
        if word:
            name = word[1]
            found["val" if name.startswith("val") else name].append(file)
    return found


def shards_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(file for file in path.iterdir() if file.suffix.lower() == ".tar")


def expanded(spec: str) -> list[Path]:
    """The files of a pattern: {0000..0007} stands for numbers, {a,b} for words. Raises UserError
    for one that is missing, and for too many."""
    if spec.lower().endswith(PACKED):
        raise UserError(
            f"{spec}: a packed tar, in which images cannot be read by number; unpack it to .tar"
        )
    names = [spec]
    while any("{" in name for name in names):
        more: list[str] = []
        for name in names:
            braces = BRACES.search(name)
            if braces is None:
                raise UserError(f"{spec}: expected a pattern such as shard-{{0000..0007}}.tar")
            for word in _words(braces[1]):
                more.append(name[: braces.start()] + word + name[braces.end() :])
                if len(more) > MOST_SHARDS:
                    raise UserError(f"{spec}: more than {MOST_SHARDS} files")
        names = list(dict.fromkeys(more))
    for name in names:
        if not Path(name).is_file():
            raise UserError(f"{name}: there is no such file" + f" (of {spec})" * (name != spec))
    return [Path(name) for name in names]


def _words(braces: str) -> Iterator[str]:
    numbers = RANGE.fullmatch(braces)
    if numbers is None:
        yield from braces.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    for number in range(first, last + 1):
        yield str(number).zfill(len(numbers[1]))


class TarSplit(DecodedSplit):
    """Images at known places in shards."""

    def __init__(
        self,
        shards: Sequence[Path],
        names: list[str],
        places: Labels,
        labels: Labels,
        shape: Shape,
        bad: Bad,
        side: int | None,
    ) -> None:
        """places: int64 (n, 3), the number of a shard, the image's first byte and its bytes."""
        super().__init__(str(shards[0].parent), names, labels, shape, bad, side)
        self.shards, self.places = shards, places

    def open(self, number: int) -> IO[bytes]:
        shard, start, size = self.places[number].tolist()
        with self.shards[shard].open("rb") as file:
            file.seek(start)
            return BytesIO(file.read(size))

    def identity(self) -> str:
        """A SHA-256 of all names, places and labels."""
        digest = hashlib.sha256("\0".join(self.names).encode("utf-8", "surrogateescape"))
        digest.update(self.places.tobytes() + self.labels.tobytes())
        return digest.hexdigest()

    def full_name(self, number: int) -> str:
        return f"{self.shards[self.places[number, 0]]}: {self.names[number]}"

    def without(self, numbers: list[int]) -> TarSplit:
        if not numbers:
            return self
        left = np.delete(np.arange(len(self)), numbers)
        if not len(left):
            raise UserError(f"{self.place}: no image in its shards can be read")
        names = [self.names[number] for number in left.tolist()]
        return TarSplit(
            self.shards,
            names,
            self.places[left],
            self.labels[left],
            self.shape,
            self.bad,
            self.side,
        )


def open_split(
    shards: list[Path], shape: Shape, classes: int | None, bad: Bad, side: int | None
) -> TarSplit:
    """The samples of all shards, in their order."""
    names: list[str] = []
    places, labels = array("q"), array("q")
    for number, shard in enumerate(shards):
        bad.alive()
        try:
            with shard.open("rb") as file:
                for image, label in samples(shard, file, bad):
                    names.append(image.name)
                    places.extend((number, image.start, image.size))
                    labels.append(label)
        except OSError as error:
            raise UserError(f"{shard}: cannot be read ({error.strerror})") from error
    where = np.array(places, np.int64).reshape(-1, 3)
    split = TarSplit(shards, names, where, np.array(labels, np.int64), shape, bad, side)
    limit = classes or min(1 + max(labels, default=0), MAX_CLASSES)
    wrong = wrong_labels(shards[0], split.labels, limit, bad)
    split = split.without(wrong)
    if not len(split):
        raise UserError(f"{shards[0]}: no samples; expected images and .cls files in a tar")
    return split


def samples(shard: Path, file: IO[bytes], bad: Bad) -> Iterator[tuple[Member, int]]:
    """Each sample's image and class number. Raises UserError for one that lacks one of them."""
    key = ""
    images: list[Member] = []
    label: int | None = None

    def whole_sample() -> Iterator[tuple[Member, int]]:
        if not images and label is None:
            return  # files of other kinds
        if len(images) == 1 and label is not None:
            yield images[0], label
            return
        what = f"{len(images)} images and {'a' if label is not None else 'no'} class"
        words = f"{shard}: sample {key} has {what}; expected one image and one .cls"
        bad.leave_out(f"{shard.name}, {key}", UserError(words))

    for member in members(shard, file):
        folder, _, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem:
            continue
        if f"{folder}/{stem}" != key:
            yield from whole_sample()
            key, images, label = f"{folder}/{stem}", [], None
        suffix = suffix.lower()
        if "." + suffix in SUFFIXES:
            images.append(member)
        elif suffix == "cls":
            file.seek(member.start)
            text = file.read(min(member.size, LONGEST_LABEL)).strip()
            label = whole(text.decode("ascii", "replace"))
            if label is None or member.size > LONGEST_LABEL:
                words = f"{shard}: {member.name} is {text[:LONGEST_LABEL]!r}; expected a number"
                bad.leave_out(f"{shard.name}, {member.name}", UserError(words))
                images, label = [], None
    yield from whole_sample()
