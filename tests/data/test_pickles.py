"""Pickles are read, and nothing in them is executed."""

import os
import pickle
import struct
import subprocess
import time

import numpy as np
import pytest

from mpitrain.data import pickles
from mpitrain.job.pickled import Unreadable

FORTRAN = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
GOOD = {
    "a": [1, -3, 255, 70000, 1 << 40, 0.5],
    b"b": b"bytes",
    "none": None,
    "tuple": (True, False, ()),
    3: ["x", {"inner": [[]]}],
    "array": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "fortran": FORTRAN,
}


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_and_arrays_come_back(protocol):
    assert same(pickles.read(pickle.dumps(GOOD, protocol)), GOOD)


def python2(array):
    """What cPickle of Python 2 and NumPy 1 wrote, opcode by opcode: strings are bytes there."""
    raw = array.tobytes()
    shape = b"".join(b"K" + bytes([n]) for n in array.shape)
    return (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
        b"(K\x01" + shape + b"\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<I", len(raw)) + raw + b"tbu."
    )


def test_a_pickle_of_python_2_is_read():
    array = np.arange(250, 256, dtype=np.uint8).reshape(2, 3)
    found = pickles.read(python2(array))
    assert found["labels"] == [6, 9] and np.array_equal(found["data"], array)


class Calls:
    """Pickles as a call of something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_nothing_is_executed(tmp_path, protocol):
    trace = tmp_path / "trace"
    for function, *arguments in (
        (os.system, f"touch {trace}"),
        (subprocess.run, ["touch", str(trace)]),
        (exec, f"open({str(trace)!r}, 'w')"),
        (open, str(trace), "w"),
        (getattr, "x", "upper"),
        (__import__, "antigravity"),
    ):
        content = pickle.dumps({"data": Calls(function, *arguments)}, protocol)
        with pytest.raises(Unreadable, match=r"is no data|instruction|not be called"):
            pickles.read(content)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken|no end"),
        (b"no pickle", "instruction|broken"),
        (b"\x80\x02}.garbage"[:3], "broken|no end"),
        (b"\x80\x02]}s.", "broken|no end"),
        (b"\x80\x02]K\x01K\x02s.", "no dictionary"),
        (b"\x80\x02}]K\x02s.", "a key of list"),
        (b"\x80\x02e.", "broken"),
        (b"\x80\x02cos\nsystem\n.", "it names os.system"),
        (b"\x80\x02cnumpy\nndarray\n.", "a name and no value"),
        (b"\x80\x02cnumpy\nndarray\nK\x05\x85R.", "calls what may not be called"),
        (b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.", "array of another type"),
        (b"\x80\x02K\x01K\x02\x85R.", "calls what may not be called"),
        (b"\x80\x02K\x01}b.", "gives a state to what has none"),
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R.",
            "not described",
        ),
        (b"\x80\x02}b\xff\xff.", "broken"),
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        (b"\x80\x02Pname\n.", "instruction PERSID"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
    ],
)
def test_what_is_no_plain_value_is_a_sentence(content, message):
    with pytest.raises(Unreadable, match=message):
        pickles.read(content)


def test_another_type_or_shape_of_array_is_refused():
    for array in (np.zeros(3), np.zeros(3, object), np.array(["a"]), np.zeros(2, "u1,u1")):
        with pytest.raises(Unreadable):
            pickles.read(pickle.dumps(array, 2))
    content = python2(np.zeros((2, 3), np.uint8)).replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86")
    with pytest.raises(Unreadable, match=r"an array of \(255, 255\) has 6 bytes"):
        pickles.read(content)


def test_values_that_hold_each_other_do_not_take_for_ever():
    """Thirty dicts, each with the one before it twice: a billion values to a reader that walks."""
    nested: dict[str, object] = {}
    for _ in range(30):
        nested = {"a": nested, "b": nested}
    begin = time.process_time()
    assert pickles.read(pickle.dumps(nested, 2)).keys() == {"a", "b"}
    loop = b"\x80\x02}q\x00U\x01ah\x00s."
    assert pickles.read(loop)["a"] is not None
    assert len(pickles.read(b"\x80\x02" + b"]" * 50000 + b"a" * 49999 + b".")) == 1
    assert time.process_time() - begin < 60
