"""Data sets by name: `mnist`, `fashion-mnist`, `cifar10` in; a folder or file that holds them out.

They are looked for where other programs leave them (PLACES), and else fetched once into
`XDG_CACHE_HOME/mpitrain/data/NAME` (~/.cache/mpitrain/data/NAME), with a checksum of every file.
Sources: Y. LeCun, C. Cortes, C. Burges, The MNIST database; H. Xiao, K. Rasul, R. Vollgraf,
Fashion-MNIST, 2017; A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpitrain.data import idx
from mpitrain.job.errors import UserError

HOME = "MPITRAIN_DATA"
"""Names a folder that is looked into first, and that what is fetched goes to."""
SECONDS = 30.0
"""Without a byte from the server before it counts as unreachable."""


@dataclass(frozen=True)
class Known:
    """A data set that has a name."""

    places: tuple[str, ...]
    """Where it may lie, in a folder of data sets."""
    files: dict[str, str]
    """What is fetched, and its checksum, with the kind of it before a colon."""
    servers: tuple[str, ...]
    """Where files are fetched from: the second if the first does not answer."""
    classes: tuple[str, ...]
    """Names in the order of the class numbers."""
    unpacked: str = ""
    """The folder of files that an archive among `files` has in it."""


PARTS = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
KNOWN = {
    "mnist": Known(
        ("mnist", "MNIST/raw", "MNIST", "mnist.npz"),
        dict(
            zip(
                PARTS,
                (
                    "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
                strict=True,
            )
        ),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        tuple("0123456789"),
    ),
    "fashion-mnist": Known(
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
        dict(
            zip(
                PARTS,
                (
                    "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "md5:25c81989df183df01b3e8a0aad5dffbe",
                    "md5:bef4ecab320f06d8554ea6380940ec79",
                    "md5:bb300cfdad3c16e7a12a480ee83cd310",
                ),
                strict=True,
            )
        ),
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (
            *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
    ),
    "cifar10": Known(
        (
            "cifar10",
            "cifar-10-batches-bin",
            "cifar-10-batches-py",
            "cifar10/cifar-10-batches-bin",
            "cifar10/cifar-10-batches-py",
            "cifar-10-batches-py-target/cifar-10-batches-py",
        ),
        {
            "cifar-10-binary.tar.gz": (
                "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            )
        },
        ("https://www.cs.toronto.edu/~kriz/",),
        (
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        "cifar-10-batches-bin",
    ),
}


def homes() -> list[Path]:
    """Folders of data sets, the first one first: MPITRAIN_DATA, ./data, that of what was fetched,
    Keras's."""
    named = os.environ.get(HOME)
    user = Path(os.path.expanduser("~"))  # noqa: PTH111 (there may be no home)
    return [
        *([Path(named)] if named else []),
        Path("data"),
        fetched_home(),
        user / ".keras" / "datasets",
    ]


def fetched_home() -> Path:
    """Where what is fetched goes."""
    named = os.environ.get(HOME)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(named) if named else Path(cache) / "mpitrain" / "data"


def find(name: str) -> Path | None:
    """Where all of a data set lies on this machine."""
    for home in homes():
        for place in KNOWN[name].places:
            if _is_whole(home / place):
                return home / place
    return None


def _is_whole(path: Path) -> bool:
    if path.suffix == ".npz":
        return path.is_file()
    ten = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    return (
        all(idx.find(path, part.removesuffix("-ubyte.gz")) for part in PARTS)
        or all((path / f"{file}.bin").is_file() for file in ten)
        or all((path / file).is_file() for file in ten)
    )


def fetch(name: str, say: Callable[[str], None], alive: Callable[[], None]) -> Path:
    """Fetch a data set, and return the folder that holds it.

    alive is called as bytes come. Raises UserError where no server can be reached, and for files
    with other checksums.
    """
    known, folder = KNOWN[name], fetched_home() / name
    say(f"data {name}: not found on this machine; fetching it from {known.servers[0]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, checksum in known.files.items():
            _fetch_file(name, file, checksum, folder, alive)
            if known.unpacked:
                _unpack(folder / file, folder, known.unpacked)
    except OSError as error:
        raise UserError(
            f"data {name}: {error.filename or folder} cannot be written ({error.strerror}); "
            f"{HOME} names another folder"
        ) from None
    return folder / known.unpacked


def _fetch_file(
    name: str, file: str, checksum: str, folder: Path, alive: Callable[[], None]
) -> None:
    """One file with this checksum, from the first server that has it."""
    import pooch  # imports requests, for a third of a second
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    why = ""
    for server in KNOWN[name].servers:
        download = pooch.HTTPDownloader(timeout=SECONDS, progressbar=_Beats(alive))
        try:
            pooch.retrieve(server + file, checksum, file, folder, downloader=download)
            return
        except requests.RequestException as error:
            why = why or _words(server, error)
        except ValueError:  # pooch has deleted it
            why = f"{server}{file} has another checksum than expected"
    raise UserError(
        f"data {name}: it is not on this machine ({', '.join(map(str, homes()))}), and cannot be "
        f"fetched: {why}. Fetch it where there is a network, and name its folder with --data or "
        f"{HOME}"
    )


def _words(server: str, error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"{server} answers {response.status_code} {response.reason}"
    return f"{server} cannot be reached"


class _Beats:
    """What pooch shows progress by: says that it goes on."""

    total = 0

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive

    def update(self, _: int) -> None:
        self._alive()

    def reset(self) -> None: ...

    def close(self) -> None: ...


def _unpack(archive: Path, folder: Path, unpacked: str) -> None:
    """The files of one folder in an archive whose checksum was right, all or none of them."""
    ready, partly = folder / unpacked, folder / f"{unpacked}.{os.getpid()}"
    if ready.exists():
        return
    partly.mkdir()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                place, _, file = member.name.rpartition("/")
                content = tar.extractfile(member) if member.isreg() else None
                if place == unpacked and content is not None:
                    with (partly / file).open("wb") as out:
                        shutil.copyfileobj(content, out)
        partly.rename(ready)
        archive.unlink()
    finally:
        shutil.rmtree(partly, ignore_errors=True)
