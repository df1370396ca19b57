"""Read pickles without running anything in them: numbers, text, containers, and what the caller
knows.

A pickle is a program for a stack machine, and Python's own reader calls whatever functions it
names. This one knows the instructions that build plain values. A name stands only for what the
caller has put behind it, and only a `Maker` of the caller's is called. Everything else is an
Unreadable. Source: Python's pickletools, which splits a pickle into instructions and runs none.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, runtime_checkable


class Unreadable(ValueError):
    """What is in a pickle is not what may be; its text says what, for a sentence about the file."""


@dataclass(frozen=True)
class Maker:
    """Makes a value of a pickle's arguments. It must bear any arguments; TypeError and ValueError
    are taken as refusals."""

    make: Callable[..., Any]


@runtime_checkable
class Built(Protocol):
    """A value of the caller's that takes a state after it was made."""

    def take_state(self, state: Any) -> None: ...


Known = Mapping[str, Any]
"""Name in a pickle (module.name) -> what it stands for: a Maker, or a value."""
LONGEST = 80
"""Characters of a name in a sentence."""
TEXT = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE")
LONG_TEXT = ("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
PLAIN = frozenset((*TEXT, *LONG_TEXT, *NUMBERS))
"""Instructions whose argument is a value. Text of Python 2 comes as str, a character a byte."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
KEYS = (str, int, bytes)
"""Of dictionaries. The hash of a tuple of tuples may take forever."""


def load(file: BinaryIO | bytes, known: Known, stored: Callable[[Any], Any] | None = None) -> Any:
    """The value of the pickle at the place of `file`, which is then behind it.

    stored: makes a value of a reference to something outside the pickle. Raises Unreadable. A file
    must not allot memory for bytes that it has not: bytes, a BytesIO or an mmap.
    """
    machine = _Machine(known, stored)
    try:
        for instruction, argument, _ in pickletools.genops(file):
            if machine.run(instruction.name, argument):
                return machine.pop()
    except Unreadable:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Unreadable(f"its pickle is broken: {error}") from None
    raise Unreadable("its pickle has no end")


class _Machine:
    """A stack, marks in it, and a memory of values by number. An instruction NAME is do_name."""

    def __init__(self, known: Known, stored: Callable[[Any], Any] | None) -> None:
        self._known, self._stored = known, stored
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}

    def pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise Unreadable("its pickle is broken: it takes a value from below a mark")
        return self._stack.pop()

    def run(self, name: str, argument: Any) -> bool:
        """One instruction; returns whether it is the last."""
        push = self._stack.append
        if name in PLAIN:
            push(argument)
        elif name in CONSTANTS:
            push(CONSTANTS[name])
        elif name in TUPLES:
            push(tuple(reversed([self.pop() for _ in range(TUPLES[name])])))
        elif name == "STOP":
            return True
        elif name not in ("PROTO", "FRAME"):
            step = getattr(self, f"do_{name.lower()}", None)
            if step is None:
                raise Unreadable(f"its pickle has the instruction {name}")
            step(argument)
        return False

    # -- containers
    # ----------------------------------------------------------------------------------------------

    def do_mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def do_empty_list(self, _: Any) -> None:
        self._stack.append([])

    def do_list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def do_empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def do_dict(self, _: Any) -> None:
        values = self._since_mark()
        self._stack.append({})
        self._set(values)

    def do_append(self, _: Any) -> None:
        self._extend([self.pop()])

    def do_appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise Unreadable("its pickle appends to what is no list")
        self._stack[-1].extend(values)

    def do_setitem(self, _: Any) -> None:
        value = self.pop()
        self._set([self.pop(), value])

    def do_setitems(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, values: list[Any]) -> None:
        into = self._stack[-1]
        if type(into) is not dict or len(values) % 2:
            raise Unreadable("its pickle sets items of what is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in KEYS:
                raise Unreadable(f"its pickle has a dictionary with a key of {type(key).__name__}")
            into[key] = value

    # -- the stack and the memory
    # ----------------------------------------------------------------------------------------------

    def do_pop(self, _: Any) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._stack.pop()

    def do_pop_mark(self, _: Any) -> None:
        self._since_mark()

    def do_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def do_binput(self, number: int) -> None:
        self._memory[number] = self._stack[-1]

    do_put = do_long_binput = do_binput

    def do_memoize(self, _: Any) -> None:
        self._memory[len(self._memory)] = self._stack[-1]

    def do_binget(self, number: int) -> None:
        self._stack.append(self._memory[number])

    do_get = do_long_binget = do_binget

    # -- names
    # ----------------------------------------------------------------------------------------------

    def do_global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def do_stack_global(self, _: Any) -> None:
        name = self.pop()
        self._name(self.pop(), name)

    def _name(self, module: Any, name: Any) -> None:
        full = f"{module}.{name}" if type(module) is type(name) is str else ""
        if full not in self._known:
            shown = full if full.isprintable() else full.encode("unicode_escape").decode()
            raise Unreadable(f"it names {shown[:LONGEST] or 'nothing'}, which is no data")
        self._stack.append(self._known[full])

    def do_reduce(self, _: Any) -> None:
        arguments, maker = self.pop(), self.pop()
        if not isinstance(maker, Maker) or type(arguments) is not tuple:
            raise Unreadable("its pickle calls what may not be called")
        self._stack.append(maker.make(*arguments))

    def do_build(self, _: Any) -> None:
        state, value = self.pop(), self._stack[-1]
        if isinstance(value, Built):
            value.take_state(state)
        elif type(value) is not dict:  # an OrderedDict's own attributes
            raise Unreadable("its pickle gives a state to what has none")

    def do_binpersid(self, _: Any) -> None:
        if self._stored is None:
            raise Unreadable("it refers to something outside itself")
        self._stack.append(self._stored(self.pop()))
