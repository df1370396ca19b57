"""How long a training step takes, from what it computes and what its exchange moves: the model
behind docs/scaling.md.

    T = F + max(W, E)            streamed: gradients leave while the backward pass W goes on
    E = max(link, work)
    T = F + W + link + work      after it, as the paper's clients send

F is all that comes before the first gradient. `link`: the bytes of the busiest link in its busier
direction (after the backward pass in both, one after the other), over the part of its rate that
messages reach. `work`: CPU seconds of the exchange. A rank whose device is a GPU has a core for it;
one that computes on its cores needs them for F + W + work.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpitrain.commands.traffic import Traffic

BACKWARD = 2 / 3
"""Of a step's computing, the part in which gradients become complete: two of three products of
each layer."""


@dataclass(frozen=True)
class Constants:
    """What was measured; docs/scaling.md says where."""

    link_share: float
    """Of a link's rate that the bytes of an exchange reach."""
    byte_seconds: float
    """CPU seconds to send or to receive a byte over TCP, of which each byte needs both."""
    message_seconds: float
    """CPU seconds to send or receive a message, however short."""
    value_seconds: dict[str, float]
    """By exchange: CPU seconds of a value on each rank, but for TCP: coding, factors, sums,
    update."""


@dataclass(frozen=True)
class Computing:
    """Who computes a step."""

    seconds: float
    """Of this rank's part of the batch."""
    cores: float = 0
    """Cores that it computes on, which the exchange needs, too; 0: it has a core of its own."""


def exchange_seconds(
    moved: Traffic,
    values: int,
    kind: str,
    rate: float,
    constants: Constants,
    ranks: int = 1,
    streamed: bool = True,
) -> tuple[float, float]:
    """Seconds on the busiest link, and CPU seconds of a rank.

    rate: of the link, bytes a second. ranks: 1 for the busiest rank's CPU seconds, else the mean of
    so many. streamed: bytes go both ways at once.
    """
    bytes_handled = max(moved.out, moved.into) if ranks == 1 else moved.everyone / ranks
    work = (
        values * constants.value_seconds[kind.partition(":")[0].removeprefix("star-")]
        + bytes_handled * constants.byte_seconds
        + moved.messages * constants.message_seconds
    )
    on_link = max(moved.out, moved.into) if streamed else moved.out + moved.into
    return on_link / (rate * constants.link_share), work


def step_seconds(
    computing: Computing, link: float, work: float, before: float = 0.0, streamed: bool = True
) -> float:
    """T. before: seconds of messages that computing waits for, as of split layers."""
    own_core = not computing.cores
    if not streamed:
        return before + computing.seconds + link + work / max(1, computing.cores)
    backward = BACKWARD * computing.seconds
    forward = computing.seconds - backward + before
    total = forward + max(backward, link, work if own_core else 0.0)
    return total if own_core else max(total, computing.seconds + work / computing.cores)
