"""The bytes that a step's exchange moves, by exchange, network and number of ranks: what ranks
send, as the log counts it, and what passes through the busiest rank's link."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.factors import pays, rank_of
from mpitrain.exchange.lowrank import DEFAULT_RANK
from mpitrain.exchange.message import HEADER
from mpitrain.job.cut import parts, round_up
from mpitrain.job.cut import shards as cut_in_shards
from mpitrain.layers.layer import Shape, size
from mpitrain.network.network import Node
from mpitrain.network.parameters import BLOCK, Layout
from mpitrain.runtime.array import ALIGNED

RECORD = {"dynamic8": BLOCK + 1, "float16": 2 * BLOCK, "lowrank8": BLOCK + 1}
"""Bytes of a block of values, by exchange."""
TREE_BELOW = 8
"""Ranks. With fewer a broadcast of MPICH 5 goes down a binomial tree, whose root sends a copy in
each round; from here on it sends shards, which then go round."""
KINDS = ("float32", "float16", "dynamic8", "lowrank", "lowrank8")
"""Exchanges that are known here, the paper's stars aside."""


@dataclass(frozen=True)
class Traffic:
    """Bytes a step, and other counts."""

    from_root: float = 0.0
    """That rank 0 sends, as the log's `bytes_sent` has it without images. A broadcast counts once:
    how often rank 0 sends it is MPI's affair."""
    from_other: float = 0.0
    """That the rank which sends most of the others sends."""
    out: float = 0.0
    """Through the busiest link, away from its rank, with broadcasts and reductions as MPICH makes
    them."""
    into: float = 0.0
    """And towards it."""
    everyone: float = 0.0
    """That all ranks together receive."""
    messages: float = 0.0
    """That the busiest rank sends or receives."""

    def __add__(self, more: Traffic) -> Traffic:
        pairs = zip(astuple(self), astuple(more), strict=True)
        return Traffic(*(one + other for one, other in pairs))


def traffic(kind: str, layout: Layout, ranks: int) -> Traffic:
    """Of gradients and weights, with `--update root` but for low rank, a rank a host.

    kind: one of KINDS, star-float32 or star-dynamic8; low rank ones with their rank after a colon.
    layout: without tensors that are split.
    """
    name, _, argument = kind.partition(":")
    total = Traffic()
    if ranks < 2:
        return total
    low = name.startswith("lowrank")
    for bucket in layout.buckets(whole=low):
        if low and bucket.coded:
            total += _factors(bucket, int(argument or DEFAULT_RANK), ranks, name == "lowrank8")
        elif bucket.coded and name == "star-dynamic8":
            total += _star(_message(bucket.size, RECORD["dynamic8"]), ranks)
        elif bucket.coded and name in RECORD:
            total += _coded(bucket.size, RECORD[name], ranks)
        elif name.startswith("star"):
            total += _star(4.0 * bucket.size, ranks)
        else:
            total += _plain(bucket.size, ranks)
    return total


def activations(
    layers: Sequence[Node], shapes: Mapping[str, Shape], images: int, ranks: int
) -> Traffic:
    """Of these layers, if they are split, with `images` on each rank (docs/wire.md)."""
    sent = 0.0
    for node in layers:
        short, long = sorted((size(shapes[node.inputs[0]]), size(shapes[node.name])))
        sent += 8 * images * (ranks - 1) * (short + long / ranks)
    count = 4 * len(layers) * (ranks - 1)
    return Traffic(sent, sent, sent, sent, sent * ranks, count)


def broadcast_factor(ranks: int) -> float:
    """How many times what is broadcast its root sends."""
    return math.ceil(math.log2(ranks)) if ranks < TREE_BELOW else 2 * (ranks - 1) / ranks


def _plain(values: float, ranks: int) -> Traffic:
    """Float32 added up on rank 0, by shards, and broadcast."""
    whole, others = 4.0 * values, ranks - 1
    reduced = whole * 2 * others / ranks
    rounds = 4 * math.ceil(math.log2(ranks))
    return Traffic(
        whole, whole, whole * broadcast_factor(ranks), reduced, 2 * whole * others, rounds
    )


def _star(whole: float, ranks: int) -> Traffic:
    """Messages of so many bytes from all ranks to rank 0, and as many back."""
    others = ranks - 1
    sent = whole * others
    return Traffic(sent, whole, sent, sent, 2 * sent, 2 * others)


def _message(values: int, record: int) -> float:
    """Bytes of a message of so many values; none for none."""
    return HEADER + parts(values, BLOCK) * record if values else 0.0


def _shards(values: int, record: int, ranks: int) -> list[float]:
    """Bytes of a message of each rank's shard."""
    cuts = cut_in_shards(parts(values, BLOCK), ranks)
    return [_message((stop - start) * BLOCK, record) for start, stop in cuts]


def _coded(values: int, record: int, ranks: int) -> Traffic:
    """Codes to the owners of shards, means to rank 0, differences from it."""
    whole, others = _message(values, record), ranks - 1
    if ranks == 2:
        return Traffic(whole, whole, whole, whole, 2 * whole, 2)
    shards = _shards(values, record, ranks)
    parts_of_all, means = sum(shards), sum(shards[1:])
    return Traffic(
        means + whole,  # its parts for the others are as long as their means
        parts_of_all,
        means + whole * broadcast_factor(ranks),
        shards[0] * others + means,
        others * parts_of_all + means + others * whole,
        3 * others + math.ceil(math.log2(ranks)),
    )


def _factors(bucket: Bucket, rank: int, ranks: int, coded: bool) -> Traffic:
    """P to rank 0 and back, and Q."""
    low = [m for m in bucket.matrices if pays(m, rank)]
    if not low:
        return _plain(bucket.size, ranks)
    aligned, others = BLOCK if coded else ALIGNED, ranks - 1
    beside = sum(round_up(m.size, aligned) for m in bucket.matrices if m not in low)
    left = sum(round_up(rank_of(m, rank) * m.rows, aligned) for m in low)
    right = sum(round_up(rank_of(m, rank) * m.columns, aligned) for m in low)
    if not coded:
        return _plain(left + beside, ranks) + _plain(right, ranks)
    record = RECORD["lowrank8"]
    p, whole = _message(left, record), _message(right + beside, record)
    rounds = math.ceil(math.log2(ranks))
    found = Traffic(p, p, p * broadcast_factor(ranks), p * others, 2 * p * others, others + rounds)
    if ranks == 2:
        return found + Traffic(whole, whole, whole, whole, 2 * whole, 2)
    shards = _shards(right + beside, record, ranks)
    sent = [sum(shards) - own + own * others for own in shards]
    return found + Traffic(sent[0], max(sent[1:]), max(sent), max(sent), sum(sent), 4 * others)
