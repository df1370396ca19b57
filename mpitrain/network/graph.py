"""A network with memory on a device: images and labels in; losses, scores and a stream of gradient
buckets out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.mixup import Mixed
from mpitrain.engine.engine import Engine
from mpitrain.exchange.bucket import Bucket
from mpitrain.job.errors import UserError
from mpitrain.layers.add import add_into
from mpitrain.layers.conv.packed_weights import NO_BIAS, PackedWeights
from mpitrain.layers.images import Images
from mpitrain.layers.layer import Layer, Parameter, Pass, Shape, size
from mpitrain.layers.softmax import SoftLabels, SoftmaxCrossEntropy
from mpitrain.network.fuse import fuse
from mpitrain.network.memory import INPUT, infer_shapes, make_plan
from mpitrain.network.network import Network, Node
from mpitrain.network.parameters import Layout, Slot
from mpitrain.runtime.ahead import InTurn, Late, same_numbers
from mpitrain.runtime.array import Array
from mpitrain.runtime.lead import Lead
from mpitrain.runtime.recording import Command, Recordings


def parameters_of(network: Network, shapes: Mapping[str, Shape]) -> dict[str, Parameter]:
    """Every trained tensor by full name, in network order."""
    return {
        f"{node.name}.{name}": parameter
        for node in network.nodes
        for name, parameter in node.layer.parameters(
            *(shapes[each] for each in node.inputs)
        ).items()
    }


def statistics_of(network: Network, shapes: Mapping[str, Shape]) -> dict[str, Parameter]:
    """Every measured tensor (running means and variances) by full name, in network order."""
    return {
        f"{node.name}.{name}": parameter
        for node in network.nodes
        for name, parameter in node.layer.statistics(
            *(shapes[each] for each in node.inputs)
        ).items()
    }


def layouts_of(parameters: Mapping[str, Parameter]) -> tuple[Layout, Layout]:
    """Of the parameters that every rank has, and of the slices that are this rank's alone."""
    return (
        Layout({name: each for name, each in parameters.items() if not each.placement}),
        Layout({name: each for name, each in parameters.items() if each.placement}),
    )


def _takes_part(node: Node, run: Pass) -> bool:
    """Whether this rank has anything to do in a node."""
    return run.images > 0 or node.layer.together


LARGEST_SLOT = 2**31 - 1
"""Numbers of the longest array that kernels can count through in int32."""


class Graph:
    """Runs a network on at most `capacity` images at a time. Raises UserError naming the layer if
    something does not fit.

    `weights` and `gradient` are flat float32 vectors laid out by `layout`; gradients are sums over
    images. `own_weights` and `own_gradient`, laid out by `own_layout`, hold the slices that this
    rank alone keeps (`Parameter.placement`); their gradients are of the whole batch. `statistics`
    is the flat vector of running means and variances. Without `training` there is no gradient and
    memory only for the way forward.
    """

    _begun: tuple[Pass, NDArray[Any], NDArray[Any]] | None = None
    _late: Late | None = None
    _lead: Lead | None = None
    own_complete = False
    """Whether `own_gradient` is complete: in a step's last backward pass, from some bucket on."""

    def __init__(
        self,
        device: Engine,
        network: Network,
        capacity: int,
        training: bool = True,
        weights: Array | None = None,
        gradient: Array | None = None,
    ) -> None:
        """weights, gradient: zeros (n,) to take as these vectors; None: new memory."""
        self.shapes = infer_shapes(network)
        self.parameters = parameters_of(network, self.shapes)
        self.layout, self.own_layout = layouts_of(self.parameters)
        self.statistics_layout = Layout(statistics_of(network, self.shapes))
        # What is fused differs from device to device; the layouts must not.
        network = fuse(network, device.format)
        self.device, self.capacity = device, capacity
        self.buckets = self.layout.buckets()
        self.plan = make_plan(
            network, self.shapes, capacity, training, device.format, device.repeats
        )
        sizes = zip(self.plan.slots, self.plan.kinds, strict=True)
        if max(nbytes // kind.itemsize for nbytes, kind in sizes) > LARGEST_SLOT:
            raise UserError(
                f"--sub-batch {capacity}: {network.name} has values too large for it; take a "
                "smaller one"
            )
        self.weights = weights or device.zeros((self.layout.length,))
        self.gradient = gradient or device.zeros((self.layout.length if training else 0,))
        self.own_weights = device.zeros((self.own_layout.length,))
        self.own_gradient = device.zeros((self.own_layout.length if training else 0,))
        self.statistics = device.upload(self.statistics_layout.initial(0))
        slots = [
            device.empty((nbytes // kind.itemsize,), kind)
            for nbytes, kind in zip(self.plan.slots, self.plan.kinds, strict=True)
        ]
        self._storages = []
        for storage in self.plan.storages:
            start = storage.offset // storage.dtype.itemsize
            stop = start + storage.nbytes(capacity) // storage.dtype.itemsize
            self._storages.append(slots[storage.slot].part(start, stop))
        network = self.network = replace(
            network, nodes=tuple(self._bind(node, training) for node in network.nodes)
        )
        scratch = max(
            node.layer.workspace(capacity, *self._inputs_of(node)) for node in network.nodes
        )
        self.scratch = device.empty((max(1, scratch),))
        for node in network.nodes:
            node.layer.scratch = self.scratch
        self._packed = self._pack()
        self._images = Images(device, self.shapes[INPUT], capacity)
        channels = self.shapes[INPUT][0]
        self.normalise(np.zeros(channels, np.float32), np.ones(channels, np.float32))
        self._soft: SoftLabels | None = None
        self._values = {
            name: self._array(storage, self.shapes[name])
            for name, storage in self.plan.values.items()
        }
        self._repeated = {
            name: self._array(storage, self.shapes[name])
            for name, storage in self.plan.repeated.items()
        }
        self._gradients = {
            name: self._array(storage, self.shapes[name])
            for name, storage in self.plan.gradients.items()
        }
        self._terms = {
            (node.name, number): self._array(self.plan.terms[node.name, number], self.shapes[name])
            for node in network.nodes
            for number, name in enumerate(node.inputs)
            if (node.name, number) in self.plan.terms
        }
        self._recordings = Recordings()
        self._varying = [
            node.layer for node in network.nodes if type(node.layer).vary is not Layer.vary
        ]
        self._complete_from: dict[str, int] = {}
        """Node -> start of its first tensor in the coded part: all gradients from there on are
        complete after its backward pass."""
        start = self.layout.coded
        for node in reversed(network.nodes):
            start = self._complete_from[node.name] = min(
                [start, *(slot.start for slot in self._slots_of(node) if slot.coded)]
            )
        owners = [node.name for node in network.nodes if self._owns(node)]
        self._last_owner = owners[0] if owners else ""
        """The node whose backward pass completes `own_gradient`."""
        loss = network.nodes[-1]
        self._labels: Array = loss.layer.labels  # type: ignore[attr-defined]  # every loss has them
        self._pinned = None if device.shares_memory else InTurn(device, self._labels.nbytes)

    def _inputs_of(self, node: Node) -> list[Shape]:
        return [self.shapes[name] for name in node.inputs]

    def _slots_of(self, node: Node) -> list[Slot]:
        """Its tensors' places in the vector that all ranks share."""
        names = (f"{node.name}.{name}" for name in node.layer.parameters(*self._inputs_of(node)))
        return [self.layout.slots[name] for name in names if name in self.layout.slots]

    def _owns(self, node: Node) -> bool:
        """Whether this rank alone has a slice of one of its tensors."""
        names = node.layer.parameters(*self._inputs_of(node))
        return any(f"{node.name}.{name}" in self.own_layout.slots for name in names)

    def _array(self, storage: int, shape: Shape) -> Array:
        return self._storages[storage].reshape((self.capacity, *self.device.format.stored(shape)))

    def _bind(self, node: Node, training: bool) -> Node:
        """The node with its layer as an op: compiled, with its parameters, statistics and
        memory."""
        layer, inputs = node.layer, self._inputs_of(node)
        arrays: dict[str, Array] = {}
        for name in layer.parameters(*inputs):
            own = f"{node.name}.{name}" in self.own_layout.slots
            weights = self.own_weights if own else self.weights
            gradient = self.own_gradient if own else self.gradient
            arrays[name] = self.view(weights, f"{node.name}.{name}")
            if training:
                arrays[f"d{name}"] = self.view(gradient, f"{node.name}.{name}")
        for name in layer.statistics(*inputs):
            slot = self.statistics_layout.slots[f"{node.name}.{name}"]
            arrays[name] = self.statistics.part(slot.start, slot.stop).reshape(slot.shape)
        for name, (shape, _) in layer.memory(self.capacity, *inputs).items():
            storage = self._storages[self.plan.memories[node.name, name]]
            arrays[name] = storage.reshape(self.device.format.stored_memory(shape))
        op = layer.bind(self.device, node.name, self.capacity, inputs, arrays)
        return replace(node, layer=op)

    def _pack(self) -> PackedWeights | None:
        """Memory for what layers pack their weights into, if any does."""
        slots = self.layout.slots
        places = [
            (
                packing,
                slots[f"{node.name}.weight"].start,
                slots[f"{node.name}.{bias}"].start if bias else NO_BIAS,
            )
            for node in self.network.nodes
            for packing, bias in node.layer.packings()
        ]
        return PackedWeights(self.device, places) if places else None

    def view(self, vector: Array, name: str) -> Array:
        """One parameter's tensor, or this rank's slice of it, in a flat vector of the layout that
        has it."""
        slot = self.layout.slots.get(name) or self.own_layout.slots[name]
        return vector.part(slot.start, slot.stop).reshape(slot.shape)

    @property
    def together(self) -> bool:
        """Whether all ranks must make each run together: a layer is split over them."""
        return any(node.layer.together for node in self.network.nodes)

    @property
    def count(self) -> int:
        """Parameters of the network, all ranks' slices together."""
        return sum(size(each.whole) for each in self.parameters.values())

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that it holds: vectors, planned values and scratch."""
        vectors = self.weights.nbytes + self.gradient.nbytes + self.statistics.nbytes
        vectors += self.own_weights.nbytes + self.own_gradient.nbytes
        packed = self._packed.nbytes if self._packed else 0
        return vectors + self.plan.nbytes + self.scratch.nbytes + packed

    def normalise(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Set the mean and deviation (C,) by which `load` normalises images."""
        self.normal = mean, std
        self._images.normalise(mean, std)

    def soften(self, smoothing: float) -> None:
        """Train from now on with labels of which all classes get the share `smoothing`, and with
        the pairs of labels that `load` is given. Raises UserError if the loss has no such form."""
        loss = self.network.nodes[-1]
        if not isinstance(loss.layer, SoftmaxCrossEntropy):
            raise UserError(
                f"--label-smoothing and --mixup: {self.network.name} ends with "
                f"{type(loss.layer).__name__}; expected SoftmaxCrossEntropy"
            )
        self._soft = loss.layer.soften(smoothing, self.capacity)

    def keep_near(self, needed: Callable[[], bool] | None) -> None:
        """Queue backward passes no further ahead of the device than somebody else can wait, who
        queues work for it meanwhile, while that is `needed`; None: as fast as it goes."""
        self._lead = None
        if needed:
            nodes = self.network.nodes
            self._flops = {node.name: node.layer.flops(*self._inputs_of(node)) for node in nodes}
            whole = self.capacity * sum(self._flops.values())
            self._lead = Lead(self.device, whole, needed)

    @property
    def can_begin(self) -> bool:
        """Whether a forward pass leaves nothing behind: no running statistics."""
        return not self.statistics.size

    def bring(self, images: NDArray[Any]) -> None:
        """Set the images of the next run on their way, while this one is computed: an array of
        which `load` then takes the first ones."""
        self._images.bring(images[: self.capacity])

    def begin(self, run: Pass, images: NDArray[Any], labels: NDArray[Any]) -> None:
        """Queue the forward pass of a run to come behind all that it depends on, so that the device
        has work while the host has other."""
        self.load(images, labels)
        self.forward(run)
        self._begun = run, images, labels

    def has_begun(self, run: Pass, images: NDArray[Any], labels: NDArray[Any]) -> bool:
        """Whether this run's forward pass has been queued, and nothing was loaded or computed
        since."""
        begun = self._begun
        return (
            begun is not None
            and begun[0] == run
            and same_numbers(images, begun[1])
            and same_numbers(labels, begun[2])
        )

    def load(self, images: NDArray[Any], labels: NDArray[Any], mixed: Mixed | None = None) -> None:
        """Queue bringing a run's images (n, C, H, W), uint8 or float32, and labels (n,) to the
        device, normalised, and what the labels are blended with.

        All must stay as they are until the run has begun to compute.
        """
        self._begun = None
        if not len(images):
            return
        self._images.load(self._values[INPUT], images)
        labels = np.ascontiguousarray(labels, np.int32)
        self._labels.send(self._pinned.copy(labels) if self._pinned else labels)
        if mixed is not None and self._soft is not None:
            self._soft.others.send(np.ascontiguousarray(mixed.others))
            self._soft.shares.send(np.ascontiguousarray(mixed.shares))

    def forward(self, run: Pass) -> None:
        """Compute every value for the loaded images."""
        self._begun = None
        for layer in self._varying:
            layer.vary(run)
        self._play(run, ("forward",), lambda: self._forward(run))

    def _forward(self, run: Pass) -> None:
        self._write_packed()
        for node in self.network.nodes:
            self._forward_of(node, run)

    def _write_packed(self) -> None:
        if self._packed:
            self._packed.write(self.weights, self.weights)

    def _forward_of(self, node: Node, run: Pass) -> None:
        if _takes_part(node, run):
            x = (self._values[name] for name in node.inputs)
            node.layer.forward(run, self._values[node.name], *x)

    def _play(self, run: Pass, part: tuple[str, ...], queue: Callable[[], None]) -> None:
        """Queue a part of a run by `queue`, or as it was queued for a run like this one."""
        recorded = self._recordings.of((run.images, run.training, run.accumulate, run.everyone))
        commands = recorded.get(part)
        if commands is None:
            with self.device.record() as commands:
                queue()
            recorded[part] = self._kept(part, commands)
            return
        for command in commands:
            command()

    def _kept(self, part: tuple[str, ...], commands: list[Command]) -> list[Command]:
        """What is queued instead of a part's commands the next time."""
        return commands

    def backward(self, run: Pass, last: bool = True) -> Iterator[Bucket]:
        """Compute every gradient, and yield each bucket as soon as it is complete if these are the
        `last` images of the step."""
        self._begun = None
        waiting, owned = list(self.buckets) if last else [], self._last_owner
        self.own_complete = False
        missing = {node.name: node for node in self.network.nodes if node.name in self._repeated}
        for node in reversed(self.network.nodes):
            self._play(run, ("backward", node.name), partial(self._backward_of, node, run, missing))
            if self._lead and last:
                self._lead.queued(run.images * self._flops[node.name])
            self.own_complete = self.own_complete or (last and node.name == owned)
            while (
                waiting
                and waiting[0].start >= self._complete_from[node.name]
                and waiting[0].stop <= self.layout.coded
            ):
                yield waiting.pop(0)
        yield from waiting

    def _backward_of(self, node: Node, run: Pass, missing: dict[str, Node]) -> None:
        """One node's; `missing` values that it reads are computed first."""
        if not _takes_part(node, run):
            return
        dx: list[Array | None] = []
        for number, name in enumerate(node.inputs):
            dx.append(self._terms.get((node.name, number)) or self._gradients.get(name))
        x = [self._repeated.get(name, self._values[name]) for name in node.inputs]
        for number, name in enumerate(node.inputs):
            if name in missing and run.images and node.layer.keeps_input(number):
                origin = missing.pop(name)
                origin.layer.repeat(
                    run, self._repeated[name], *(self._values[each] for each in origin.inputs)
                )
        node.layer.backward(run, dx, self._gradients[node.name], x, self._values[node.name])
        for number, name in enumerate(node.inputs):
            term = self._terms.get((node.name, number))
            if term is not None and run.images:
                add_into(self.device, self._gradients[name], term, self.shapes[name], run.images)

    def losses(self, images: int) -> NDArray[np.float32]:
        """The loss of each image of the last run."""
        return self._losses.reshape((images,)).download()

    def losses_later(self, images: int) -> Callable[[], NDArray[np.float32]]:
        """`losses`, of all that has been queued so far."""
        if self.device.shares_memory:
            return partial(self.losses, images)
        if self._late is None:
            self._late = Late(self._losses)
        self._late.ask()
        late = self._late
        return lambda: late.get()[:images]

    @property
    def _losses(self) -> Array:
        return self._values[self.network.nodes[-1].name]

    @property
    def scores(self) -> Array:
        """Class scores (capacity, classes) of the last run."""
        return self._values[self.network.nodes[-1].inputs[0]]

    @property
    def labels(self) -> Array:
        """Labels int32 (capacity,) of the last run."""
        return self._labels
