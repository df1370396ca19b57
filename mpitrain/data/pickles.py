"""What a pickle of plain values and NumPy arrays holds: bytes in; dicts, lists, numbers, strings
and uint8 arrays out.

Nothing in a pickle is imported, called or executed. pickletools (of Python's own library) cuts it
into opcodes and arguments; those below are carried out on a list of plain values, and every other
one is refused. The few names that an array's pickle needs are words that stand for themselves.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAY, EMPTY, WHOLE, DTYPE, BYTES = "ndarray", "_reconstruct", "_frombuffer", "dtype", "encode"
NAMES = {
    "numpy ndarray": ARRAY,
    "numpy dtype": DTYPE,
    "numpy.core.multiarray _reconstruct": EMPTY,
    "numpy._core.multiarray _reconstruct": EMPTY,
    "numpy.core.numeric _frombuffer": WHOLE,
    "numpy._core.numeric _frombuffer": WHOLE,
    "_codecs encode": BYTES,
}
"""What an array's pickle names: of NumPy 1 and 2, and of Python 3 where it writes bytes for Python
2."""
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
"""Opcodes whose argument is a value."""
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}
LONGEST = 120
"""Characters of another's words in a message of ours."""


class PickleError(ValueError):
    """Bytes that are no pickle, or one that holds other things."""


@dataclass(frozen=True)
class _Word:
    """One of NAMES, which is nothing but its name here."""

    name: str


@dataclass
class _Object:
    """An array or a type of numbers that is being described; never a real one."""

    kind: str
    facts: tuple[Any, ...] = ()


class _Mark:
    """Where a group of values begins on the stack."""


def read(content: bytes) -> Any:
    """The value in a pickle. Raises PickleError for what is none, and for anything in it that is
    not plain values and uint8 arrays."""
    try:
        return _value(_run(content))
    except PickleError:
        raise
    except Exception as error:  # pickletools and damaged values raise nearly anything
        raise PickleError(f"not a whole pickle: {str(error)[:LONGEST]}") from None


def _run(content: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "STOP":
            (result,) = stack
            return result
        if name in IGNORED:
            continue
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                module, word = stack[-2:]
                del stack[-2:]
                argument = f"{module} {word}"
            if argument not in NAMES:
                asked = str(argument)[:LONGEST]
                raise PickleError(f"it asks for {asked}, which is not looked up")
            stack.append(_Word(NAMES[argument]))
        elif name == "MARK":
            stack.append(_Mark())
        elif name in TUPLES:
            count = TUPLES[name]
            if len(stack) < count:
                raise PickleError("values are missing")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(_group(stack)))
        elif name in ("APPENDS", "APPEND"):
            _of(stack, list, _group(stack) if name == "APPENDS" else [stack.pop()])
        elif name in ("SETITEMS", "SETITEM"):
            _of(stack, dict, _group(stack) if name == "SETITEMS" else _last(stack, 2))
        elif name == "REDUCE":
            stack.append(_reduced(*_last(stack, 2)))
        elif name == "BUILD":
            _build(stack)
        else:
            raise PickleError(f"it has the opcode {name}, which no plain values need")
    raise PickleError("its end is missing")


def _last(stack: list[Any], count: int) -> list[Any]:
    """The last values, taken off the stack."""
    found = stack[-count:]
    if len(found) < count:
        raise PickleError("values are missing")
    del stack[-count:]
    return found


def _group(stack: list[Any]) -> list[Any]:
    """The values since the last mark, taken off the stack together with it."""
    for place in range(len(stack) - 1, -1, -1):
        if isinstance(stack[place], _Mark):
            found = stack[place + 1 :]
            del stack[place:]
            return found
    raise PickleError("a group of values has no beginning")


def _of(stack: list[Any], kind: type[Any], values: list[Any]) -> None:
    """Put values into the list or dict that is last on the stack."""
    target = stack[-1]
    if type(target) is not kind:
        raise PickleError(f"values are put into a {type(target).__name__}")
    if kind is list:
        target.extend(values)
    else:
        keys = values[::2]
        if any(type(key) not in (str, bytes, int) for key in keys):
            raise PickleError("a dict has keys that are no strings or numbers")
        target.update(zip(keys, values[1::2], strict=True))


def _reduced(word: Any, arguments: Any) -> _Object | bytes:
    """What `word(*arguments)` would be or begin: the description of an array or of a type of
    numbers, or bytes that were written as a string."""
    if not isinstance(word, _Word) or type(arguments) is not tuple:
        raise PickleError("it calls what is not NumPy's")
    if word.name == EMPTY and arguments[:1] == (_Word(ARRAY),):
        return _Object(ARRAY)
    if word.name == DTYPE and arguments[:1] in (("u1",), (b"u1",)):
        return _Object(DTYPE)
    if word.name == WHOLE and len(arguments) == 4:
        content, kind, shape, order = arguments
        return _Object(ARRAY, (1, shape, kind, order == "F", content))
    if word.name == BYTES and len(arguments) == 2 and type(arguments[0]) is str:
        return arguments[0].encode("latin-1")
    raise PickleError("it has an array of another type; expected uint8")


def _build(stack: list[Any]) -> None:
    """Complete the description that is before the last value."""
    target, state = _last(stack, 2)
    if not isinstance(target, _Object) or type(state) is not tuple:
        raise PickleError("it changes what is no array")
    stack.append(target)
    if target.kind == ARRAY:
        target.facts = state


def _value(value: Any) -> Any:
    """A value, or the values of a dict, as they are, with arrays made of their descriptions."""
    if type(value) is dict:
        return {key: _plain(each) for key, each in value.items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, _Object) and value.kind == ARRAY:
        return _array(*value.facts)
    if isinstance(value, _Word | _Object | _Mark):
        raise PickleError("it holds a name and no value")
    return value


def _array(version: Any, shape: Any, kind: Any, fortran: Any, content: Any) -> NDArray[np.uint8]:
    """The uint8 array of NumPy's own state of one (ndarray.__reduce__)."""
    described = isinstance(kind, _Object) and kind.kind == DTYPE
    if version != 1 or not described or type(shape) is not tuple:
        raise PickleError("an array is not described as NumPy does")
    # A pickle of Python 2 has a string there, whose bytes pickletools gives as Latin-1.
    raw = content.encode("latin-1") if type(content) is str else content
    if type(raw) not in (bytes, bytearray) or any(type(n) is not int or n < 0 for n in shape):
        raise PickleError("an array has no bytes or no shape")
    if math.prod(shape) != len(raw):
        raise PickleError(f"an array of {shape} has {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
