"""The careful reader of pickles gives what Python's own gives, of values that are plain."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpitrain.job.pickled import Maker, Unreadable, load

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.binary(), inner)
    ),
)


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(PLAIN, st.integers(3, 5))
def test_plain_values_come_as_they_are(value: Any, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol), {}) == value


def test_one_value_in_two_places_is_one() -> None:
    one = [1]
    found = load(pickle.dumps([one, (one,), {"a": one}], 2), {})
    assert found[0] is found[1][0] is found[2]["a"]


def test_a_list_in_itself_is_read() -> None:
    loop: list[Any] = []
    loop.append(loop)
    found = load(pickle.dumps(loop), {})
    assert found[0] is found


def test_pickles_one_after_the_other() -> None:
    file = io.BytesIO(pickle.dumps(1) + pickle.dumps("two") + b"rest")
    assert [load(file, {}), load(file, {}), file.read()] == [1, "two", b"rest"]


def test_text_of_python_2_comes_a_character_a_byte() -> None:
    assert load(b"\x80\x02U\x02\xff\x00.", {}) == "\xff\x00"


class Value:
    """Takes what it was made of, and then a state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def take_state(self, state: Any) -> None:
        self.state = state


def test_names_are_what_the_caller_puts_behind_them() -> None:
    content = b"\x80\x02cany\nname\nK\x01K\x02\x86RK\x03b."
    found = load(content, {"any.name": Maker(Value)})
    assert (found.arguments, found.state) == ((1, 2), 3)
    assert load(b"cany\nname\n.", {"any.name": 5}) == 5
    assert load(b"\x8c\x03any\x8c\x04name\x93.", {"any.name": 5}) == 5
    assert load(b"K\x07Q.", {}, lambda reference: reference * 2) == 14


def refuse(*_: Any) -> Any:
    raise ValueError("not these")


@pytest.mark.parametrize(
    ("content", "known", "words"),
    [
        (b"cos\nsystem\n.", {}, "names os.system, which is no data"),
        (b"cos\nsys\x1btem\n.", {}, r"names os.sys\\x1btem, which"),
        (b"K\x01K\x02\x93.", {}, "names nothing, which"),
        (b"cany\nname\n)R.", {"any.name": len}, "calls what may not be called"),
        (b"cany\nname\nK\x01R.", {"any.name": Maker(Value)}, "calls what may not be called"),
        (b"cany\nname\n)R.", {"any.name": Maker(refuse)}, "broken: not these"),
        (b"K\x01Q.", {}, "refers to something outside"),
        (b"K\x01K\x02b.", {}, "a state to what has none"),
        (b"}))K\x01s.", {}, "broken|sets items of what is no"),
        (b"})K\x01s.", {}, "a key of tuple"),
        (b")K\x01a.", {}, "appends to what is no list"),
        (b"K\x01(0.", {}, ""),
        (b"K\x01(\x85.", {}, "below a mark"),
        (b"h\x05.", {}, "broken"),
        (b"t.", {}, "broken"),
        (b"\xff.", {}, "broken"),
        (b"K", {}, "broken"),
        (b"\x8f.", {}, "the instruction EMPTY_SET"),
    ],
)
def test_what_is_refused(content: bytes, known: dict[str, Any], words: str) -> None:
    if not words:
        assert load(content, known) == 1
        return
    with pytest.raises(Unreadable, match=words):
        load(content, known)


def test_nothing_of_the_value_is_hashed_but_keys() -> None:
    """The hash of this tuple would take 2^60 steps."""
    content = b")" + b"2\x86" * 60 + b"."
    found: Any = load(content, {})
    assert len(found) == 2
    with pytest.raises(Unreadable, match="key of tuple"):
        load(b"}" + content[:-1] + b"K\x01s.", {})
