"""Swap activations of split layers in the 8-bit code: a quarter of float32's bytes.

A message has the header of message.py and the records of its values, whose blocks are cut from its
start; the last record ends with the last value. What a rank sends to itself is rounded as well, so
that no image is computed from finer values because of where it lies. Nothing that rounding leaves
out is kept: the next step has other activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import numpy as np

from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_protocol import BLOCK, Bytes, Codec, Floats, V, blocks
from mpitrain.exchange.message import HEADER, ROWS, Label, check, seal
from mpitrain.mpi.activations import Activations
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


def rows(kind: str, activations: Activations, device: Device) -> Activations | CodedRows[Array]:
    """How rows of split layers travel: kind is float32, or the name of a codec."""
    if kind == "float32":
        return activations
    return CodedRows(activations, make_codec(kind, device))


class CodedRows(Generic[V]):
    """Stands for mpi's Activations where layers are split. For the main thread, on the main
    queue."""

    def __init__(self, activations: Activations, codec: Codec[V]) -> None:
        self.rank, self.size = activations.rank, activations.size
        self._activations, self._codec = activations, codec
        self._floats, self._codes = codec.floats(BLOCK), codec.bytes(codec.record)
        self._swaps = 0
        """How many there were; the same on every rank."""

    def swap(self, outgoing: Sequence[Floats], incoming: Sequence[Floats]) -> None:
        """Send outgoing[r], rounded, to each rank r, and fill incoming[r] with what it sends.
        Collective.

        As Activations.swap. Raises RunError that names the sender of a message that is not the one
        expected.
        """
        messages = self._encode(outgoing)
        came = [np.empty(self._length(array.size), np.uint8) for array in incoming]
        self._activations.swap(messages, came)
        for sender, (message, array) in enumerate(zip(came, incoming, strict=True)):
            if array.size:
                check(message, self._label(array.size), self._activations.numbers[sender])
        self._swaps += 1
        self._decode(came, incoming)

    def _encode(self, outgoing: Sequence[Floats]) -> list[Bytes]:
        """A message for each array; arrays that are one and the same are coded once."""
        distinct = {id(array): array for array in outgoing}
        places = self._places(list(distinct.values()))
        values, codes = self._memory(places[-1])
        with values.host(write=True, read=False) as host:
            for array, start, stop in zip(distinct.values(), places, places[1:], strict=False):
                end = start * BLOCK + array.size
                host[start * BLOCK : end] = array.reshape(-1)
                host[end : stop * BLOCK] = 0
        self._codec.encode(codes, values)
        messages: dict[int, Bytes] = {}
        with codes.host() as records:
            for array, start in zip(distinct.values(), places, strict=False):
                message = np.empty(self._length(array.size), np.uint8)
                if array.size:
                    at = self._bytes(start)
                    message[HEADER:] = records[at : at + message.size - HEADER]
                    seal(message, self._label(array.size))
                messages[id(array)] = message
        return [messages[id(array)] for array in outgoing]

    def _decode(self, messages: Sequence[Bytes], into: Sequence[Floats]) -> None:
        places = self._places(into)
        values, codes = self._memory(places[-1])
        with codes.host(write=True, read=False) as records:
            for message, start, stop in zip(messages, places, places[1:], strict=False):
                end = self._bytes(start) + message[HEADER:].size
                records[self._bytes(start) : end] = message[HEADER:]
                records[end : self._bytes(stop)] = 0
        self._codec.decode_add(values, codes, first=True)
        with values.host() as host:
            for array, start in zip(into, places, strict=False):
                end = start * BLOCK + array.size
                array[...] = host[start * BLOCK : end].reshape(array.shape)

    def _places(self, arrays: Sequence[Floats]) -> list[int]:
        """The block at which each array starts when they lie one after the other, and the end."""
        return [0, *np.cumsum([blocks(array.size) for array in arrays]).tolist()]

    def _memory(self, count: int) -> tuple[V, V]:
        """Values and records of so many blocks, on the device."""
        if self._floats.size < count * BLOCK:
            self._floats.release()
            self._codes.release()
            self._floats = self._codec.floats(count * BLOCK)
            self._codes = self._codec.bytes(self._bytes(count))
        return self._floats.part(0, count * BLOCK), self._codes.part(0, self._bytes(count))

    def _bytes(self, count: int) -> int:
        """Of so many records."""
        return count * self._codec.record

    def _length(self, size: int) -> int:
        """Bytes of a message of so many values; none for no values, for then none is sent."""
        return HEADER + blocks(size) + size if size else 0

    def _label(self, size: int) -> Label:
        return Label(self._codec.number, BLOCK, 0, ROWS, self._swaps, size)
