"""Which values of a network may share memory: each lives from the moment it is written to the last
time it is read.

Time runs 0 .. L-1 for the forward passes of L nodes and L .. 2L-1 for their backward passes, last
node first. Values that never live at once share a place in a slot; a layer that works in place
gives its output its input's storage where nobody else still needs that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from mpitrain.engine.format import PLANES, Format
from mpitrain.job.cut import round_up
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Shape, size
from mpitrain.network.network import Network, Node
from mpitrain.runtime.array import ALIGNMENT

INPUT = "input"


@dataclass
class Storage:
    """Memory for one or more values that follow each other in place."""

    shape: Shape
    """Of one image, of its largest value."""
    dtype: np.dtype[np.generic]
    first: int
    last: int
    per_image: bool = True
    slot: int = -1
    offset: int = 0
    """Bytes from the slot's beginning."""

    def nbytes(self, capacity: int) -> int:
        return size(self.shape) * self.dtype.itemsize * (capacity if self.per_image else 1)


@dataclass
class Plan:
    """Storages of all values, gradients and layer memories, and the slots that they share."""

    storages: list[Storage] = field(default_factory=list)
    values: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    """Where a value is computed once more for the way back, which it was not kept for."""
    gradients: dict[str, int] = field(default_factory=dict)
    memories: dict[tuple[str, str], int] = field(default_factory=dict)
    terms: dict[tuple[str, int], int] = field(default_factory=dict)
    """(node, input number) -> storage of that node's share of a gradient that others have begun: it
    is added."""
    slots: list[int] = field(default_factory=list)
    """Bytes of each slot."""
    kinds: list[np.dtype[np.generic]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(self.slots)


def infer_shapes(network: Network) -> dict[str, Shape]:
    """Shape of every value for one image. Raises UserError naming the node whose inputs do not
    fit."""
    shapes: dict[str, Shape] = {INPUT: network.input_shape}
    at = "x".join(str(extent) for extent in network.input_shape[1:])
    for node in network.nodes:
        where = f"{node.name}: "
        if node.name in shapes:
            raise UserError(f"{where}two layers of this name ({network.name})")
        if expected := node.layer.takes(len(node.inputs)):
            raise UserError(
                f"{where}takes {expected} inputs, got {len(node.inputs)} ({network.name})"
            )
        for name in node.inputs:
            if name not in shapes:
                raise UserError(
                    f"{where}there is no earlier layer {name!r} to take as input ({network.name})"
                )
        try:
            shapes[node.name] = node.layer.output_shape(*(shapes[name] for name in node.inputs))
        except UserError as error:
            raise UserError(f"{where}{error} ({network.name} at {at})") from None
    read = {name for node in network.nodes for name in node.inputs}
    for node in network.nodes[:-1]:
        if node.name not in read:
            raise UserError(f"{node.name}: no later layer takes it as input ({network.name})")
    if network.nodes:
        loss = network.nodes[-1]
        if shapes[loss.inputs[0]] != (network.classes,):
            raise UserError(
                f"{loss.name}: expected {network.classes} scores, one a class, got "
                f"{shapes[loss.inputs[0]]} ({network.name})"
            )
    return shapes


def make_plan(
    network: Network,
    shapes: Mapping[str, Shape],
    capacity: int,
    training: bool,
    fmt: Format = PLANES,
    repeats: bool = False,
) -> Plan:
    """The plan for runs of at most `capacity` images, with or without a way back.

    fmt: how images lie. repeats: whether values that are cheap to compute once more are not kept
    for the way back.
    """
    plan = Plan()
    nodes, length = network.nodes, len(network.nodes)
    consumers: dict[str, list[int]] = {INPUT: [], **{node.name: [] for node in nodes}}
    for time, node in enumerate(nodes):
        for name in node.inputs:
            consumers[name].append(time)

    def back(time: int) -> int:
        return 2 * length - 1 - time

    def needed_until(name: str, produced: int) -> int:
        """The last time at which a value is read."""
        times = [produced, *consumers[name]]
        if training:
            times += [back(time) for time in consumers[name] if _reads_back(nodes[time], name)]
            if produced >= 0 and "y" in nodes[produced].layer.keeps:
                times.append(back(produced))
        return max(times)

    def add(
        shape: Shape, first: int, last: int, dtype: DTypeLike = np.float32, per_image: bool = True
    ) -> int:
        plan.storages.append(Storage(shape, np.dtype(dtype), first, last, per_image))
        return len(plan.storages) - 1

    def add_value(name: str, first: int, last: int) -> int:
        return add(fmt.stored(shapes[name]), first, last, fmt.numbers(shapes[name]).dtype)

    # The same images may go forward again.
    plan.values[INPUT] = add_value(INPUT, -1, max(needed_until(INPUT, -1), length - 1))
    for time, node in enumerate(nodes):
        # Scores and losses are read afterwards.
        last = length * 2 if time >= length - 2 else needed_until(node.name, time)
        readers = [each for each in consumers[node.name] if _reads_back(nodes[each], node.name)]
        kept = not any(name in plan.repeated for name in node.inputs)
        if (
            training
            and repeats
            and readers
            and kept
            and node.layer.can_repeat(fmt, *(shapes[name] for name in node.inputs))
        ):
            last = max(consumers[node.name])
            plan.repeated[node.name] = add_value(node.name, back(max(readers)), back(min(readers)))
        origin, inputs = node.inputs[0], [shapes[name] for name in node.inputs]
        in_place = node.layer.shares_memory(fmt, *inputs)
        if in_place and origin != INPUT and needed_until(origin, _index(nodes, origin)) == time:
            plan.values[node.name] = plan.values[origin]
            storage = plan.storages[plan.values[origin]]
            storage.last = max(storage.last, last)
        else:
            plan.values[node.name] = add_value(node.name, time, last)
        for name, (shape, dtype) in node.layer.memory(capacity, *inputs).items():
            # Labels are there before the first node runs.
            begin = -1 if time == length - 1 else time
            plan.memories[node.name, name] = add(
                fmt.stored_memory(shape),
                begin,
                back(time) if training else time,
                dtype,
                per_image=False,
            )
    if training:
        _plan_gradients(plan, network, shapes, consumers, fmt)
    _share(plan, capacity)
    return plan


def _plan_gradients(
    plan: Plan,
    network: Network,
    shapes: Mapping[str, Shape],
    consumers: Mapping[str, Sequence[int]],
    fmt: Format,
) -> None:
    """Storage for the gradient of every value but the images. The last consumer writes it first;
    earlier ones add to it."""
    nodes, length = network.nodes, len(network.nodes)
    for time in reversed(range(length)):
        node, now = nodes[time], 2 * length - 1 - time
        if time == length - 1:
            # The loss's own, which nobody reads.
            plan.storages.append(Storage((), np.dtype(np.float32), now, now))
            plan.gradients[node.name] = len(plan.storages) - 1
        mine = plan.gradients[node.name]
        for number, name in enumerate(node.inputs):
            if name == INPUT:
                continue
            in_place = number == 0 and node.layer.shares_memory(
                fmt, *(shapes[each] for each in node.inputs)
            )
            begins = name not in plan.gradients
            if in_place:
                target = mine
                if begins:
                    plan.storages[mine].last = max(
                        plan.storages[mine].last, 2 * length - 1 - _index(nodes, name)
                    )
            else:
                last = 2 * length - 1 - _index(nodes, name) if begins else now
                shape = shapes[name]
                plan.storages.append(
                    Storage(fmt.stored(shape), fmt.numbers(shape).dtype, now, last)
                )
                target = len(plan.storages) - 1
            if begins:
                plan.gradients[name] = target
            else:
                plan.terms[node.name, number] = target


def _reads_back(node: Node, name: str) -> bool:
    """Whether a node's backward reads that value among its inputs."""
    return any(
        each == name and node.layer.keeps_input(number) for number, each in enumerate(node.inputs)
    )


def _index(nodes: Sequence[Node], name: str) -> int:
    return next(time for time, node in enumerate(nodes) if node.name == name)


def _share(plan: Plan, capacity: int) -> None:
    """Give every storage a place: the largest first, each into the first gap of a slot where it
    meets nobody of its time."""
    tenants: list[list[tuple[Storage, int]]] = []
    sizes = [(storage, storage.nbytes(capacity)) for storage in plan.storages]
    for storage, nbytes in sorted(sizes, key=lambda each: -each[1]):
        for slot, others in enumerate(tenants):
            if plan.kinds[slot] != storage.dtype:
                continue
            offset = _gap(storage, nbytes, others, plan.slots[slot])
            if offset is not None:
                others.append((storage, nbytes))
                storage.slot, storage.offset = slot, offset
                break
        else:
            storage.slot = len(tenants)
            tenants.append([(storage, nbytes)])
            plan.slots.append(nbytes)
            plan.kinds.append(storage.dtype)


def _gap(
    storage: Storage, nbytes: int, others: Sequence[tuple[Storage, int]], room: int
) -> int | None:
    """The first offset in a slot of `room` bytes where `nbytes` are free for as long as a storage
    lives, if there is one."""
    taken = sorted(
        (other.offset, bytes_taken)
        for other, bytes_taken in others
        if storage.first <= other.last and other.first <= storage.last
    )
    offset = 0
    for start, bytes_taken in taken:
        if offset + nbytes <= start:
            break
        offset = max(offset, round_up(start + bytes_taken, ALIGNMENT))
    return offset if offset + nbytes <= room else None
