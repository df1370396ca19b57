"""What a pickle of plain values and NumPy's uint8 arrays holds, read without running anything in
it: the names that an array's pickle needs mean descriptions here, of which arrays are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.pickled import Maker, Unreadable, load

OTHER = "it has an array of another type; expected uint8"


@dataclass(frozen=True)
class _Word:
    """A name that stands for nothing but itself."""

    name: str


NDARRAY = _Word("numpy.ndarray")


class _Type:
    """uint8, the only type of numbers that is taken."""

    def take_state(self, state: Any) -> None:
        """Byte order and the like, of which one byte has none."""


@dataclass
class _Array:
    """An array that is being described; never a real one."""

    facts: Any = None

    def take_state(self, state: Any) -> None:
        self.facts = state


def _empty(kind: Any = None, *_: Any) -> _Array:
    if kind is not NDARRAY:
        raise Unreadable(OTHER)
    return _Array()


def _whole(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    return _Array((1, shape, kind, order == "F", content))


def _type(name: Any = None, *_: Any) -> _Type:
    if name not in ("u1", b"u1"):
        raise Unreadable(OTHER)
    return _Type()


def _bytes(text: Any, _: Any) -> bytes:
    """Bytes that Python 3 wrote as text for Python 2."""
    if type(text) is not str:
        raise Unreadable("its bytes are no text")
    return text.encode("latin-1")


KNOWN = {
    "numpy.ndarray": NDARRAY,
    "numpy.dtype": Maker(_type),
    **dict.fromkeys(
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        Maker(_empty),
    ),
    **dict.fromkeys(
        ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"), Maker(_whole)
    ),
    "_codecs.encode": Maker(_bytes),
}
"""What an array's pickle names, of NumPy 1 and 2."""


def read(content: bytes) -> Any:
    """The value in a pickle, whose arrays are the value or in its dict. Raises Unreadable for
    anything that is not plain values and uint8 arrays."""
    value = load(content, KNOWN)
    if type(value) is dict:
        return {key: _plain(each) for key, each in value.items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return _array(value.facts)
    if isinstance(value, _Word | _Type | Maker):
        raise Unreadable("it holds a name and no value")
    return value


def _array(facts: Any) -> NDArray[np.uint8]:
    """The uint8 array of NumPy's own state of one (ndarray.__reduce__)."""
    if type(facts) is not tuple or len(facts) != 5:
        raise Unreadable("an array is not described as NumPy does")
    version, shape, kind, fortran, content = facts
    if version != 1 or not isinstance(kind, _Type) or type(shape) is not tuple:
        raise Unreadable("an array is not described as NumPy does")
    raw: Any = content
    if type(content) is str:  # in a pickle of Python 2, whose bytes come as Latin-1
        raw = content.encode("latin-1", "replace")
    if type(raw) not in (bytes, bytearray) or any(type(n) is not int or n < 0 for n in shape):
        raise Unreadable("an array has no bytes or no shape")
    if math.prod(shape) != len(raw):
        raise Unreadable(f"an array of {shape} has {len(raw)} bytes")
    try:
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:  # more axes than NumPy has
        raise Unreadable(str(error)) from None
