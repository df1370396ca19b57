"""The bytes of docs/wire.md: three ranks in one process make the messages that a plain reading of
it made (make_vectors.py)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import make_vectors
import numpy as np
import pytest
from make_vectors import BUCKET, IMAGES, RANKS, RATE, STEP, VALUES

from mpitrain.exchange.by_message import ByMessage
from mpitrain.exchange.carrier import Place
from mpitrain.exchange.codec_numpy import PlainDynamic8
from mpitrain.exchange.codec_protocol import Plain
from mpitrain.exchange.deltas import Deltas
from mpitrain.exchange.mean import Mean
from mpitrain.exchange.message import HEADER, LAYOUT, VERSION, Label, check
from mpitrain.exchange.rows import CodedRows
from mpitrain.job.errors import RunError
from mpitrain.mpi.hops import complete

VECTORS = Path(__file__).parent / "vectors"
MESSAGES = sorted((VECTORS / "messages").iterdir())
PHASES = {"parts": 0, "means": 1, "deltas": 2, "rows": 3, "left": 4, "columns": 5}
"""Of the message in a file, by the beginning of its name."""


class Post:
    """A wire between threads, one a rank, that keeps what it carries."""

    def __init__(
        self, rank: int, boxes: dict[tuple[int, int], queue.Queue], carried: dict[str, bytes]
    ) -> None:
        self.rank, self.size, self.numbers = rank, RANKS, range(RANKS)
        self._boxes, self._carried = boxes, carried

    def start_all_to_all(self, outgoing: list, incoming: list, lane: int) -> Delivery:
        for peer, message in enumerate(outgoing):
            if message is not None and message.size and peer != self.rank:
                name = f"{name_of(message)}-{self.rank}-to-{peer}.bin"
                self._carried[name] = message.tobytes()
                self._boxes[self.rank, peer].put(message.copy())
        return Delivery(
            [
                (self._boxes[peer, self.rank], into)
                for peer, into in enumerate(incoming)
                if into is not None and into.size
            ]
        )

    def start_broadcast(self, array: np.ndarray, lane: int) -> Delivery:
        if self.rank:
            return Delivery([(self._boxes[0, self.rank], array)])
        self._carried[f"{name_of(array)}-0-to-all.bin"] = array.tobytes()
        for peer in range(1, RANKS):
            self._boxes[0, peer].put(array.copy())
        return Delivery([])

    start_star = start_broadcast


def name_of(message: np.ndarray) -> str:
    """What kind of message it is, by its header."""
    phase = LAYOUT.unpack_from(message.data, 0)[5]
    return next(name for name, its in PHASES.items() if its == phase)


class Delivery:
    """What is to come out of which boxes."""

    def __init__(self, expected: list[tuple[queue.Queue, np.ndarray]]) -> None:
        self._expected = expected

    def wait(self) -> None:
        for box, into in self._expected:
            into[:] = box.get(timeout=10)


def read(name: str) -> np.ndarray:
    return np.fromfile(VECTORS / name, "<f4").astype(np.float32)


def same(found: np.ndarray, name: str) -> None:
    """Equal as numbers: the sign of a zero is nobody's concern."""
    np.testing.assert_array_equal(found, read(name), err_msg=name)


def one_rank(rank: int, post: Post) -> None:
    codec = PlainDynamic8()
    gradient, y = Plain(read(f"before/gradient-{rank}.f32")), Plain(read("before/weights.f32"))
    residual, owned = (
        Plain(read(f"before/{side}-residual-{rank}.f32")) for side in ("sender", "owner")
    )
    place = Place(STEP, BUCKET)
    carrier = ByMessage(post, codec)  # type: ignore[arg-type]
    mean = Mean(carrier, codec, to_all=False)
    complete(mean.hops(gradient, IMAGES, place, residual, owned))
    same(residual.values, f"after/sender-residual-{rank}.f32")
    same(owned.values, f"after/owner-residual-{rank}.f32")
    w = None
    if rank == 0:
        same(gradient.values, "after/mean.f32")
        w = Plain(read("before/master.f32") - RATE * gradient.values)
    complete(Deltas(carrier, codec).hops(y, w, place))
    same(y.values, "after/weights.f32")


def carried_by(prepare: Callable[[int, Post], Callable[[], None]]) -> dict[str, bytes]:
    """The messages that three ranks send, by name. Each is prepared here, and runs in a thread."""
    boxes = {(a, b): queue.Queue() for a in range(RANKS) for b in range(RANKS)}
    carried: dict[str, bytes] = {}
    wrong: list[BaseException] = []

    ready = [prepare(rank, Post(rank, boxes, carried)) for rank in range(RANKS)]

    def run(rank: int) -> None:
        try:
            ready[rank]()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    return carried


def test_three_ranks_make_the_messages_of_the_files() -> None:
    carried = carried_by(lambda rank, post: lambda: one_rank(rank, post))
    expected = [path for path in MESSAGES if not path.name.startswith("rows")]
    assert sorted(carried) == [path.name for path in expected]
    for path in expected:
        assert carried[path.name] == path.read_bytes(), path.name


class Mirror:
    """Ranks of which each sends to this one what this one sends to it, and which keeps that."""

    rank, size, numbers = 0, 2, range(2)

    def __init__(self) -> None:
        self.carried: list[bytes] = []

    def swap(self, outgoing: list[np.ndarray], incoming: list[np.ndarray]) -> None:
        self.carried.append(outgoing[1].tobytes())
        for into, message in zip(incoming, outgoing, strict=True):
            into[:] = message


def test_rows_of_split_layers_travel_as_the_file_says() -> None:
    """The file's is the eighth swap; both ranks get what is decoded, the sender too."""
    mirror, values = Mirror(), read("before/rows.f32")
    rows = CodedRows(mirror, PlainDynamic8())
    for _ in range(STEP):
        rows.swap([values[:0], values[:3]], [values[:0].copy(), values[:3].copy()])
    came = [np.empty_like(values) for _ in range(2)]
    rows.swap([values, values], came)
    assert mirror.carried[-1] == (VECTORS / "messages/rows-0-to-1.bin").read_bytes()
    for each in came:
        same(each, "after/rows.f32")


def test_the_files_are_what_their_maker_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_vectors, "FOLDER", tmp_path)
    make_vectors.main()
    files = [path.relative_to(VECTORS) for path in VECTORS.rglob("*.*")]
    assert sorted(files) == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    for file in files:
        assert (tmp_path / file).read_bytes() == (VECTORS / file).read_bytes(), file


def label_of(path: Path) -> Label:
    phase = path.name.split("-")[0]
    owner = int(path.stem[-1]) if phase == "parts" else int(path.stem.split("-")[1])
    count = VALUES if phase in ("deltas", "rows") else (512, 512, VALUES - 1024)[owner]
    return Label(1, 512, 0 if phase == "rows" else BUCKET, PHASES[phase], STEP, count)


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_a_message_is_accepted_as_it_is_and_refused_with_any_byte_changed(path: Path) -> None:
    message = np.fromfile(path, np.uint8)
    check(message, label_of(path), 1)
    places = [*range(HEADER), *range(HEADER, message.size, 97), message.size - 1]
    for place in places:
        changed = message.copy()
        changed[place] ^= 0x40
        with pytest.raises(RunError, match="message from rank 1"):
            check(changed, label_of(path), 1)


def test_another_version_is_refused_by_number() -> None:
    message = np.fromfile(MESSAGES[0], np.uint8)
    message[4] = VERSION + 1
    with pytest.raises(RunError, match=f"version {VERSION}, got b'mpiT' version {VERSION + 1}"):
        check(message, label_of(MESSAGES[0]), 2)


def test_the_document_knows_the_header_and_every_file() -> None:
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    assert f"{HEADER} bytes" in text
    assert f"version {VERSION}" in text
    for path in MESSAGES:
        assert path.name in text
