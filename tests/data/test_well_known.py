"""Data sets by name: found, fetched from a real server here, and refused."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpitrain.data import well_known
from mpitrain.data.bad import Bad
from mpitrain.data.source import Dataset, open_source
from mpitrain.data.well_known import KNOWN, PARTS
from mpitrain.job.errors import UserError


@dataclass
class Server:
    """A web server in this process, and what it was asked for."""

    folder: Path
    address: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder, asked = tmp_path / "server", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield Server(folder, f"http://127.0.0.1:{running.server_port}/", asked)
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which no data set lies anywhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(well_known.HOME, raising=False)
    return tmp_path


def idx(shape: tuple[int, ...], seed: int) -> bytes:
    head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    values = np.random.default_rng(seed).integers(0, 10, shape, np.uint8)
    values.flat[0] = 9
    return head + values.tobytes()


def idx_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(PARTS):
        shape = (6, 5, 4) if "images" in name else (6,)
        (folder / name).write_bytes(gzip.compress(idx(shape, number), mtime=0))


def cifar_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("data_batch_1", *(f"data_batch_{n}" for n in range(2, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(bytes(2 * 3073))


def serve(monkeypatch: pytest.MonkeyPatch, name: str, server: Server, *before: str) -> None:
    """Have the name's files come from this server, and the checksums be theirs."""
    files = {
        file: f"sha256:{hashlib.sha256((server.folder / file).read_bytes()).hexdigest()}"
        for file in KNOWN[name].files
    }
    known = replace(KNOWN[name], files=files, servers=(*before, server.address))
    monkeypatch.setitem(KNOWN, name, known)


def opened(name: str) -> tuple[Dataset, list[str]]:
    said: list[str] = []
    data = open_source(name, shape_hint=(1, 8, 8), bad=Bad(say=said.append))
    return data, said


def test_what_is_missing_is_fetched_once(
    monkeypatch: pytest.MonkeyPatch, server: Server, machine: Path
) -> None:
    idx_files(server.folder)
    serve(monkeypatch, "mnist", server)
    data, said = opened("mnist")
    place = machine / "cache" / "mpitrain" / "data" / "mnist"
    assert (data.name, data.shape, len(data.train)) == ("mnist", (1, 5, 4), 6)
    assert data.class_names == tuple("0123456789") and data.test is not None
    assert said == [
        f"data mnist: not found on this machine; fetching it from {server.address}",
        f"data mnist: in {place}",
    ]
    assert sorted(server.asked) == sorted(f"/{name}" for name in PARTS)
    assert sorted(file.name for file in place.iterdir()) == sorted(PARTS)
    assert opened("mnist")[1] == [f"data mnist: in {place}"] and len(server.asked) == 4


def test_an_archive_is_unpacked_and_what_else_it_holds_is_not(
    monkeypatch: pytest.MonkeyPatch, server: Server, machine: Path
) -> None:
    cifar_files(machine / "made")
    with tarfile.open(server.folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for file in (machine / "made").iterdir():
            tar.add(file, f"cifar-10-batches-bin/{file.name}")
        for name in ("../outside.bin", "cifar-10-batches-bin/../../outside.bin"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    serve(monkeypatch, "cifar10", server)
    data, said = opened("cifar10")
    assert (data.shape, len(data.train), data.class_names[3]) == ((3, 32, 32), 10, "cat")
    assert said[-1].endswith("cache/mpitrain/data/cifar10/cifar-10-batches-bin")
    assert not list((machine / "cache").rglob("outside*"))
    assert not list((machine / "cache").rglob("*.gz"))
    assert opened("cifar10")[1] == said[-1:] and len(server.asked) == 1


def test_a_fetch_that_broke_off_goes_on(
    monkeypatch: pytest.MonkeyPatch, server: Server, machine: Path
) -> None:
    idx_files(server.folder)
    serve(monkeypatch, "fashion-mnist", server)
    last = server.folder / PARTS[3]
    last.rename(machine / "away")
    with pytest.raises(UserError, match=r"fashion-mnist: .* answers 404 File not found"):
        opened("fashion-mnist")
    (machine / "away").rename(last)
    data, _ = opened("fashion-mnist")
    assert data.class_names[9] == "ankle boot"
    assert server.asked == [f"/{name}" for name in (*PARTS, PARTS[3])]


def test_a_file_with_another_checksum_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, server: Server, machine: Path
) -> None:
    idx_files(server.folder)
    serve(monkeypatch, "mnist", server)
    (server.folder / PARTS[0]).write_bytes(b"a page of a hotel's network")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz has another checksum"):
        opened("mnist")
    assert not list((machine / "cache").rglob("*train-images*"))


def test_without_a_network_one_sentence_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, server: Server, machine: Path
) -> None:
    idx_files(server.folder)
    closed = "http://127.0.0.1:9/"
    serve(monkeypatch, "mnist", server, closed)
    assert len(opened("mnist")[0].train) == 6, "the second server has it"
    monkeypatch.setitem(KNOWN, "mnist", replace(KNOWN["mnist"], servers=(closed,)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "empty"))
    with pytest.raises(UserError) as caught:
        opened("mnist")
    assert str(caught.value) == (
        f"data mnist: it is not on this machine (data, {machine}/empty/mpitrain/data, "
        f"{machine}/home/.keras/datasets), and cannot be fetched: {closed} cannot be reached. "
        "Fetch it where there is a network, and name its folder with --data or MPITRAIN_DATA"
    )


def test_a_folder_that_cannot_be_written_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, server: Server, machine: Path
) -> None:
    idx_files(server.folder)
    serve(monkeypatch, "mnist", server)
    (machine / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"mnist: .*cannot be written \(.*\); MPITRAIN_DATA names"):
        opened("mnist")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "data/MNIST/raw"),
        ("mnist", "home/.keras/datasets/mnist.npz"),
        ("mnist", "named/mnist"),
        ("fashion-mnist", "data/FashionMNIST/raw"),
        ("fashion-mnist", "home/.keras/datasets/fashion-mnist"),
        ("cifar10", "data/cifar-10-batches-bin"),
        ("cifar10", "home/.keras/datasets/cifar-10-batches-py"),
    ],
)
def test_what_other_programs_have_left_is_found(
    monkeypatch: pytest.MonkeyPatch, machine: Path, name: str, place: str
) -> None:
    monkeypatch.setitem(KNOWN, name, replace(KNOWN[name], servers=("http://127.0.0.1:9/",)))
    monkeypatch.setenv(well_known.HOME, str(machine / "named"))
    path = machine / place
    if path.suffix:
        path.parent.mkdir(parents=True)
        x, y = np.zeros((4, 5, 4), np.uint8), np.array([0, 1, 2, 9])
        np.savez(path, x_train=x, y_train=y)
    elif place.endswith("-py"):
        import pickle

        path.mkdir(parents=True)
        batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
        for file in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
            (path / file).write_bytes(pickle.dumps(batch, 2))
    elif name == "cifar10":
        cifar_files(path)
    else:
        idx_files(path)
    data, said = opened(name)
    shown = Path(place) if place.startswith("data") else path
    assert said == [f"data {name}: in {shown}"] and len(data.class_names) == 10
