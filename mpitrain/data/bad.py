"""Images that cannot be read: named, counted and left out, up to so many of them (`--skip-bad`)."""

from __future__ import annotations

from collections.abc import Callable

from mpitrain.job.display import Display
from mpitrain.job.errors import MpitrainError
from mpitrain.job.log import Log

FEW = 3
"""Names in a line."""


class Bad:
    """What has been left out so far, of all splits. One image more than `most` is the error that it
    would be without this."""

    def __init__(
        self,
        most: int | None = None,
        alive: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """most: None where nothing may be left out. alive is called now and then in long work, say
        with a line about how far that is."""
        self.most, self.alive, self.say = most, alive, say
        self.names: list[str] = []
        self._told: tuple[Display, Log] | None = None

    def leave_out(self, name: str, error: MpitrainError) -> None:
        """Count an image that cannot be read. Raises `error`, with words about --skip-bad, for the
        first one that is too many."""
        if self.most is None:
            raise error
        if len(self.names) >= self.most:
            hint = (
                f"--skip-bad {self.most} has {self}"
                if self.most
                else "--skip-bad N leaves out up to N such images"
            )
            raise type(error)(f"{error}; {hint}") from error
        self.names.append(name)
        if self._told:
            display, log = self._told
            display.say(f"left out: {error} ({len(self.names)} of --skip-bad {self.most})")
            log.event("skip", images=1, names=[name])

    def tell(self, display: Display, log: Log) -> None:
        """Report what was left out so far, and from now on each image as it is found."""
        self._told = display, log
        if self.names:
            display.say(f"  --skip-bad {self.most}: {self}")
            log.event("skip", images=len(self.names), names=self.names)

    def __str__(self) -> str:
        some = ", ".join(self.names[:FEW]) + ", ..." * (len(self.names) > FEW)
        return f"left out {len(self.names)} image{'s' * (len(self.names) != 1)}: {some}"
