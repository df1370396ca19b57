"""All ranks have read the same network, though each may have a file of its own under its name."""

from __future__ import annotations

import hashlib

from mpitrain.job.errors import UserError, agreed
from mpitrain.mpi.wire import Wire
from mpitrain.network.models import netfile
from mpitrain.network.network import Network


def check_networks(network: Network, name: str, wire: Wire) -> None:
    """Raise UserError, on every rank alike, unless all ranks' networks are the same. Collective.

    name: what was typed. Vectors of other lengths would reach MPI's reductions, some of which add
    up what happens to lie there.
    """
    lines = netfile.encode(network).splitlines()
    digests = wire.agree.gather_facts(hashlib.sha256("\n".join(lines).encode()).hexdigest())
    other = next((rank for rank, each in enumerate(digests) if each != digests[0]), None)
    if other is None:
        return
    texts = wire.agree.gather_facts(lines)
    first, second = texts[0], texts[other]
    at = next(
        (at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(second)),
    )
    mine, its = (repr(text[at]) if at < len(text) else "nothing" for text in (first, second))
    raise agreed(
        UserError(
            f"{name}: not the same network on all ranks; as `mpitrain summary --toml` prints it, "
            f"line {at + 1} is {mine} on rank 0, {its} on rank {other}"
        )
    )
