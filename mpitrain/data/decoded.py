"""Labelled images that are encoded files: sample numbers in, pixels out, decoded by a few
threads."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.bad import Bad
from mpitrain.data.dataset import Images, Labels, Shape
from mpitrain.data.picture import centre, decode
from mpitrain.data.view import View
from mpitrain.job.errors import MpitrainError, RunError, UserError

THREADS = 4
"""Pillow decodes without Python's lock, so a few threads a rank decode at once; a training says how
many."""
ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PN": b"IEND"}
"""First three bytes and end mark of JPEG and PNG: a file with both is rarely damaged, and seldom
decoded for nothing."""
TAIL = 64
"""Bytes in which the end mark is looked for; some cameras and editors write a little behind it."""
CHUNK = 1024
QUIET, OFTEN = 2.0, 10.0
"""Seconds before the first word about how far a look at all of them is, and between two."""


class DecodedSplit:
    """Images by number; a subclass says where they are.

    In the place of one that cannot be read, and that `bad` leaves out, stands the next one of its
    class that can be.
    """

    def __init__(
        self,
        place: str,
        names: list[str],
        labels: Labels,
        shape: Shape,
        bad: Bad | None = None,
        side: int | None = None,
    ) -> None:
        """place: what they are all in, and names within it, for messages. side: pixels that the
        shorter side is scaled to before a part of `shape` around the centre is taken; None: as few
        as that part needs."""
        self.place, self.names, self.labels, self.shape = place, names, labels, shape
        self.bad = bad or Bad()
        self.side = side
        self.unreadable: set[int] = set()
        """Numbers that are counted already."""
        self.instead: dict[int, int] = {}
        self.seconds = 0.0
        """CPU time of reading and decoding so far."""
        self._counting = threading.Lock()
        self.use_threads(THREADS)

    def open(self, number: int) -> IO[bytes]:
        """The file of an image. Raises OSError if it is not there."""
        raise NotImplementedError

    def without(self, numbers: list[int]) -> DecodedSplit:
        """The split of the other images. Raises UserError if there is none."""
        raise NotImplementedError

    def full_name(self, number: int) -> str:
        """Where an image is, for errors."""
        return f"{self.place}/{self.names[number]}"

    def use_threads(self, count: int) -> None:
        """Decode by so many threads from now on, on the cores that this process may use now."""
        self.pool = ThreadPoolExecutor(count, "decode")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, numbers: NDArray[np.int64], view: View | None = None) -> tuple[Images, Labels]:
        """Raises RunError naming the file that is missing or no image: the run found it on its
        way."""
        images = np.empty((len(numbers), *self.shape), np.uint8)

        def fill(place: int) -> str | None:
            begin, number = time.thread_time(), int(numbers[place])
            try:
                images[place] = self.look(self.instead.get(number, number), number, view)
            except UserError as error:
                # Not the error, which would keep this split and its threads until a collection.
                return str(error)
            finally:
                with self._counting:
                    self.seconds += time.thread_time() - begin
            return None

        for place, words in enumerate(list(self.pool.map(fill, range(len(numbers))))):
            if words:
                images[place] = self._another(int(numbers[place]), words, view)
        return images, self.labels[numbers]

    def look(self, number: int, as_number: int, view: View | None = None) -> NDArray[np.uint8]:
        """One image, as another number would be looked at. Raises UserError if it is none."""
        cut = view.cut(as_number) if view else None
        if cut is None and self.side is not None:
            cut = centre(self.side, self.shape)
        name = self.full_name(number)
        try:
            with self.open(number) as file:
                image = decode(file, self.shape, cut, name)
        except OSError as error:
            raise UserError(f"{name}: cannot be decoded; expected an image ({error})") from None
        return view.colour(as_number, image) if view else image

    def _another(self, number: int, words: str, view: View | None) -> NDArray[np.uint8]:
        """The image that stands for one that cannot be read: a function of the files alone, so that
        a resumed run finds the same."""
        self._leave_out(number, RunError(words))
        alike = np.flatnonzero(self.labels == self.labels[number])
        for other in (*alike[alike > number].tolist(), *alike[alike < number].tolist()):
            try:
                image = self.look(other, number, view)
            except UserError as worse:
                self._leave_out(other, RunError(str(worse)))
            else:
                self.instead[number] = other
                return image
        raise RunError(f"{self.kin(number)}: no image in it can be read")

    def kin(self, number: int) -> str:
        """What all images of an image's class are in, for errors."""
        return f"{self.place}, class {self.labels[number]}"

    def _leave_out(self, number: int, error: MpitrainError) -> None:
        if number not in self.unreadable:
            self.bad.leave_out(self.short_name(number), error)
            self.unreadable.add(number)

    def short_name(self, number: int) -> str:
        """An image's name in lists of names."""
        return self.names[number]

    def first_look(self, longest: float = math.inf) -> list[int]:
        """Numbers of files that cannot be read, counted, as far as a quick look tells, and as far
        as it comes in so many seconds.

        Raises UserError for one too many.
        """
        begin = spoke = time.monotonic()
        wrong: list[int] = []
        for first in range(0, len(self), CHUNK):
            now = time.monotonic()
            if now - begin > longest:
                self.bad.say(
                    f"looked at {first:,} of {len(self):,} images in {self.place}; the others are "
                    "looked at as they are read"
                )
                break
            if now - spoke > (QUIET if spoke == begin else OFTEN):
                self.bad.say(
                    f"looked at {first:,} of {len(self):,} images in {self.place} (--skip-bad)"
                )
                spoke = now
            self.bad.alive()
            numbers = range(first, min(first + CHUNK, len(self)))
            found = self.pool.map(lambda number: trouble(self, number), numbers)
            for number, words in zip(numbers, found, strict=True):
                if words:
                    self._leave_out(number, UserError(words))
                    wrong.append(number)
        return wrong


def trouble(split: DecodedSplit, number: int) -> str | None:
    """What is wrong with a file: it is decoded unless it begins and ends as a JPEG or a PNG
    does."""
    try:
        with split.open(number) as opened:
            mark = ENDS.get(opened.read(3))
            opened.seek(-TAIL, os.SEEK_END)  # refused where there are fewer
            if mark and mark in opened.read():
                return None
    except (OSError, ValueError):
        pass  # look() has the words
    try:
        split.look(number, number)
    except UserError as error:
        return str(error)
    return None


def others(names: Sequence[str], labels: Labels, without: list[int]) -> tuple[list[str], Labels]:
    """Names and labels but for those of some numbers."""
    left = np.delete(np.array(names, object), without).tolist()
    return left, np.delete(labels, without)
