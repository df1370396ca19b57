"""PyTorch's files give the tensors that are in them, and nothing else; hostile ones end in a
sentence, with nothing run."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_pth import PLACE, values

from mpitrain.job import pth
from mpitrain.job.errors import UserError
from mpitrain.job.pth import PthReader
from mpitrain.job.weights import open_weights

WHOLE = ["now.pth", "old.pth", "checkpoint.pth"]


@pytest.mark.parametrize("file", WHOLE)
def test_all_tensors_are_what_pytorch_saved(file: str) -> None:
    wanted = values()
    with open_weights(PLACE / file) as reader:
        assert reader.names == set(wanted)
        for name, array in wanted.items():
            found = reader.read(name)
            assert found.dtype == array.dtype and reader.shape(name) == array.shape
            np.testing.assert_array_equal(found, array)
        np.testing.assert_array_equal(reader.read("view", 1, 3), wanted["view"][1:3])
        weights = reader.weights()
        assert "bn.num_batches_tracked" not in weights and "bn.running_mean" in weights
        with pytest.raises(UserError, match="no settings of mpitrain"):
            reader.settings()


def test_a_whole_module_is_refused_by_what_it_names() -> None:
    with pytest.raises(UserError, match=r"names torch\.nn\.modules\.linear\.Linear, which is no"):
        open_weights(PLACE / "module.pth")


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: there is no such file"):
        open_weights(tmp_path / "nothing")
    with pytest.raises(UserError, match="cannot be read"):
        open_weights(tmp_path)
    (tmp_path / "x.pth").write_bytes(b"some text")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        open_weights(tmp_path / "x.pth")


class Runs:
    """Unpickled by Python's own reader, it would make a folder."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._place),)


class Calls:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def saved(content: bytes, storages: dict[str, bytes], path: Path, **more: Any) -> Path:
    """A file as PyTorch writes it, around a pickle."""
    with zipfile.ZipFile(path, "w", more.get("compress", zipfile.ZIP_STORED)) as archive:
        archive.writestr("x/data.pkl", content)
        for name, data in {"byteorder": b"little", **more.get("entries", {})}.items():
            archive.writestr(f"x/{name}", data)
        for key, data in storages.items():
            archive.writestr(f"x/data/{key}", data)
    return path


def tensor(
    *, key: str = "0", count: Any = 4, offset: Any = 0, shape: Any = (4,), strides: Any = (1,),
    kind: bytes = b"ctorch\nFloatStorage\n",
) -> bytes:  # fmt: skip
    """The pickle of {"w": a tensor}, written out: PyTorch is not there to name its functions."""

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    reference = b"(" + plain("storage") + kind + plain(key) + plain("cpu") + plain(count) + b"tQ"
    arguments = b"(" + reference + plain(offset) + plain(shape) + plain(strides) + b"\x89"
    arguments += b"ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + plain("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"s."


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error, open_weights(path) as reader:
        for name in reader.names:
            reader.read(name)
    assert str(error.value).startswith(f"{path} is no state_dict of PyTorch's: ")
    return str(error.value).partition("PyTorch's: ")[2]


def test_a_file_of_these_tests_is_as_pytorchs(tmp_path: Path) -> None:
    data = np.arange(4, dtype=np.float32)
    with PthReader(saved(tensor(), {"0": data.tobytes()}, tmp_path / "x.pth")) as reader:
        np.testing.assert_array_equal(reader.read("w"), data)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_that_is_named_is_run(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "made"
    content = pickle.dumps({"w": Runs(trap)}, protocol)
    words = refused(saved(content, {}, tmp_path / "x.pth"))
    assert "mkdir, which is no data" in words and not trap.exists()
    pickle.loads(content)
    assert trap.exists(), "the trap is none"


@pytest.mark.parametrize("content", [
    pickle.dumps(Calls(eval, "1")), pickle.dumps(Calls(getattr, 3, "real")),
    b"cposix\nsystem\n(S'true'\ntR.", b"(S'true'\niposix\nsystem\n.",
    b"(cposix\nsystem\nS'true'\no.",
    b"\x80\x02cbuiltins\neval\n.", b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
    b"\x82\x01.", b"\x80\x02ccollections\nOrderedDict\n)\x81.",
])  # fmt: skip
def test_instructions_that_run_or_import_are_none(tmp_path: Path, content: bytes) -> None:
    words = refused(saved(content, {}, tmp_path / "x.pth"))
    assert "which is no data" in words or "the instruction" in words


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"shape": (5,)}, "larger than its storage"),
        ({"shape": (10**9,), "strides": (0,)}, "larger than its storage"),
        ({"offset": 1}, "larger than its storage"),
        ({"offset": -1}, "impossible shape"),
        ({"strides": (-1,)}, "impossible shape"),
        ({"shape": (2, 2)}, "impossible shape"),
        ({"shape": (1,) * 9, "strides": (1,) * 9}, "impossible shape"),
        ({"shape": "4"}, "without a storage, a shape"),
        ({"shape": (4.0,)}, "without a storage, a shape"),
        ({"shape": (True,)}, "without a storage, a shape"),
        ({"shape": (0,), "offset": 99}, "outside its storage"),
        ({"count": 10**12}, "storage 0 is larger than the file"),
        ({"count": 2**70}, "storage 0 is larger than the file"),
        ({"count": -1}, "storage 0 is larger than the file"),
        ({"count": 5, "shape": (5,)}, "storage 0 has 16 bytes, not 20"),
        ({"key": "../../etc/passwd"}, "x/data/../../etc/passwd"),
        ({"kind": b"ctorch\nQInt8Storage\n"}, "names torch.QInt8Storage"),
        ({"kind": b"ctorch\nSize\n"}, "no storage"),
    ],
)
def test_tensors_that_cannot_be(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    path = saved(tensor(**facts), {"0": bytes(16)}, tmp_path / "x.pth")
    assert words in refused(path)


def test_files_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    path, zeros = tmp_path / "x.pth", {"0": bytes(16)}
    assert "x/byteorder is compressed" in refused(
        saved(tensor(), zeros, path, compress=zipfile.ZIP_DEFLATED)
    )
    big = {"entries": {"byteorder": b"big"}}
    with pytest.warns(UserWarning, match="Duplicate"):
        saved(tensor(), zeros, path, entries={"data.pkl": b"."})
    assert "2 entries end in /data.pkl" in refused(path)
    assert "byte order is not little" in refused(saved(tensor(), zeros, path, **big))
    assert "no tensor in it" in refused(saved(pickle.dumps({"w": 3}), zeros, path))
    assert "its pickle is broken" in refused(saved(tensor()[:-1], zeros, path))
    whole = (PLACE / "now.pth").read_bytes()
    path.write_bytes(whole[:-100])
    assert refused(path)
    at = whole.index(values()["conv.weight"].tobytes())
    path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    assert "CRC" in refused(path)


def test_old_files_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    whole, path = (PLACE / "old.pth").read_bytes(), tmp_path / "x.pth"
    found = set()
    for cut in range(1, 30):
        path.write_bytes(whole[:-cut])
        found.add(refused(path).rstrip("0123456789"))
    assert {"it ends within storage ", "its storages are not those of its tensors"} == found
    path.write_bytes(whole.replace(b"little_endian", b"little_indian"))
    assert "byte order is not little" in refused(path)
    at = whole.index(struct.pack("<q", 18))
    path.write_bytes(whole[:at] + struct.pack("<q", 19) + whole[at + 8 :])
    assert "not those of its tensors" in refused(path)
    for stop in range(0, len(whole), 97):
        path.write_bytes(whole[:stop])
        with pytest.raises(UserError):
            open_weights(path)


def test_a_pickle_that_promises_more_than_is_there(tmp_path: Path) -> None:
    for content in (
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"1",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x",
        b"\x80\x02r" + struct.pack("<I", 2**32 - 1) + b".",
        b"(" * 10**5, b"\x80\x02)" + b"\x85" * 10**5 + b".", b"0.", b".", b"",
    ):  # fmt: skip
        assert refused(saved(content, {}, tmp_path / "x.pth"))


def test_a_pickle_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pth, "LARGEST_PICKLE", 100)
    assert "now/data.pkl is compressed or of 973 bytes" in refused(PLACE / "now.pth")
