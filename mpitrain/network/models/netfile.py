"""Networks as TOML files: `decode` makes a Network of the text, `encode` writes one that decodes to
the same layers.

    name = "small"
    input = [1, 28, 28]        # channels, height, width
    classes = 10
    batch_size = 64            # optional, like weight_decay and data: defaults of the options

    [[layer]]
    name = "conv1"             # its parameters are conv1.weight and conv1.bias
    type = "convolution"       # a class of mpitrain.layers in snake case, then its arguments
    channels = 20
    kernel = 5                 # or [5, 3]: height, width

    [[layer]]
    name = "fc"
    type = "dense"
    features = "classes"       # as many as the data has
    inputs = ["conv1"]         # only where it is not the layer before; "input" is the images

The last layer is the loss, the one before it gives the scores.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mpitrain import layers
from mpitrain.job import toml
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Layer, Shape, size
from mpitrain.network.memory import infer_shapes
from mpitrain.network.models.chain import IMAGES, Chain
from mpitrain.network.network import Network


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def type_of(layer: Layer) -> str:
    """The type of a layer, as a network file names it."""
    return _snake(type(layer).__name__)


LOSSES: tuple[type[Layer], ...] = (layers.SoftmaxCrossEntropy, layers.SquaredLoss)
TYPES: dict[str, type[Layer]] = {
    _snake(kind.__name__): kind
    for kind in (
        layers.Convolution,
        layers.Dense,
        layers.MaxPool,
        layers.AveragePool,
        layers.GlobalAveragePool,
        layers.BatchNorm,
        layers.Relu,
        layers.Relu6,
        layers.Dropout,
        layers.Add,
        layers.Concat,
        layers.Flatten,
        *LOSSES,
    )
}
"""The types a layer of a file may have."""
ADAPTING = {"features", "channels"}
"""Keys that take "classes" for a number."""
DEFAULTS: dict[str, object] = {"batch_size": 256, "weight_decay": 0.0, "data": "synthetic"}
"""Options of training that a header may set, and what they are where it does not (the command
line's)."""
HEADER: dict[str, Any] = {
    "name": str,
    "input": list[int],
    "classes": int,
    "layer": list[dict[str, Any]],
}
OPTIONS: dict[str, Any] = {key: type(value) for key, value in DEFAULTS.items()}
MAX_EXTENT = 1 << 20
"""Of an image, and of the classes; layers may have as many features and channels."""
MAX_VALUES, MAX_PARAMETERS = 1 << 31, 1 << 33
"""Of one layer: 8 GiB for an image, 32 GiB of weights."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Names go into file names and into the keys of checkpoints (momentum/NAME), so they hold no slash
and no space."""


def read(
    path: Path,
    input_shape: Shape | None = None,
    classes: int | None = None,
    *,
    dropout: bool = True,
) -> Network:
    """The network of a file; see `decode`. Raises UserError also for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected a network file in UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(
            f"{path}: cannot read the network file: {getattr(error, 'strerror', error)}"
        ) from None
    return decode(text, str(path), input_shape, classes, dropout=dropout)


def decode(
    text: str,
    file: str,
    input_shape: Shape | None = None,
    classes: int | None = None,
    *,
    dropout: bool = True,
) -> Network:
    """The network a text describes, for images of `input_shape` and so many classes, its own where
    None.

    A network without "classes" in it keeps its own number, which must be enough. Errors (UserError)
    begin with `file`.
    """
    try:
        table = toml.parse(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # the reader's own, numbers of thousands of digits, brackets as deep
        raise UserError(f"{file}: not TOML: {error}") from None
    _check(table, HEADER, OPTIONS, file)
    if not NAME.fullmatch(table["name"]):
        raise UserError(
            f"{file}: key name: expected letters, digits, '_', '.' and '-', got "
            f"{_show(table['name'])}"
        )
    if len(table["input"]) != 3 or min(table["input"]) < 1:
        raise UserError(
            f"{file}: key input: expected [channels, height, width], got {_show(table['input'])}"
        )
    if max(table["input"]) > MAX_EXTENT:
        raise UserError(
            f"{file}: key input: expected at most {MAX_EXTENT}, got {_show(table['input'])}"
        )
    if not 1 <= table["classes"] <= MAX_EXTENT:
        raise UserError(
            f"{file}: key classes: expected 1 to {MAX_EXTENT}, got {_show(table['classes'])}"
        )
    if not table["layer"]:
        raise UserError(f"{file}: expected a [[layer]], got none")
    adapts = any("classes" in (entry.get(key) for key in ADAPTING) for entry in table["layer"])
    if classes is not None and classes > table["classes"] and not adapts:
        raise UserError(
            f"{file}: gives {table['classes']} scores, but there are {classes} classes: "
            f'write features = "classes" in its last dense layer to let it adapt'
        )
    count = classes if classes is not None and adapts else table["classes"]
    chain = _chain(table["layer"], file, count, dropout)
    defaults = {key: table.get(key, value) for key, value in DEFAULTS.items()}
    shape = input_shape or tuple(table["input"])
    network = Network(table["name"], shape, count, chain.nodes(), defaults)
    _check_size(network, file)
    return network


def _check_size(network: Network, file: str) -> None:
    """Raise UserError for a layer whose values or parameters no device holds; to lay them out would
    take for ever."""
    try:
        shapes = infer_shapes(network)
    except UserError:
        return  # said where shapes matter, in words of their own
    for node in network.nodes:
        parameters = node.layer.parameters(*(shapes[each] for each in node.inputs)).values()
        for what, most, count in (
            ("values an image", MAX_VALUES, size(shapes[node.name])),
            ("parameters", MAX_PARAMETERS, sum(size(each.shape) for each in parameters)),
        ):
            if count > most:
                raise UserError(
                    f"{file}: layer {node.name}: it has {count:,} {what}; at most {most:,} fit"
                )


def _chain(entries: list[dict[str, Any]], file: str, classes: int, dropout: bool) -> Chain:
    """Every [[layer]] of a file, checked and built."""
    names = [entry.get("name") for entry in entries]
    chain = Chain(dropout=dropout)
    known = [IMAGES]
    for number, entry in enumerate(entries, start=1):
        where = f"{file}: layer {entry.get('name', f'number {number}')}"
        name = _name(entry, where, known)
        kind = _type(entry, where)
        layer = _layer(entry, kind, where, classes)
        inputs = _inputs(entry, kind, where, known, names[number - 1 :])
        if isinstance(layer, LOSSES) != (number == len(entries)):
            losses = " or ".join(_snake(loss.__name__) for loss in LOSSES)
            raise UserError(
                f"{where}: the last layer, and no other, is the loss ({losses}); it is a "
                f"{entry['type']}"
            )
        chain.add(name, layer, *inputs)
        known.append(name)
    return chain


def _name(entry: Mapping[str, Any], where: str, known: list[str]) -> str:
    if "name" not in entry:
        raise UserError(f"{where}: missing key name")
    name = entry["name"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"{where}: key name: expected letters, digits, '_', '.' and '-', got {_show(name)}"
        )
    if name in known:
        what = "means the images" if name == IMAGES else "is taken by an earlier layer"
        raise UserError(f"{where}: key name: {name} {what}")
    return name


def _type(entry: Mapping[str, Any], where: str) -> type[Layer]:
    if "type" not in entry:
        raise UserError(f"{where}: missing key type")
    if not isinstance(entry["type"], str) or entry["type"] not in TYPES:
        raise UserError(
            f"{where}: key type: unknown type {_show(entry['type'])}{_known(entry['type'], TYPES)}"
        )
    return TYPES[entry["type"]]


def _layer(entry: Mapping[str, Any], kind: type[Layer], where: str, classes: int) -> Layer:
    """The layer of one [[layer]]: its type called with its other keys."""
    given = {
        key: classes if key in ADAPTING and value == "classes" else value
        for key, value in entry.items()
        if key not in ("name", "type", "inputs")
    }
    hints = typing.get_type_hints(kind.__init__)
    arguments = _arguments(kind)
    required = {
        key: hints[key] for key, default in arguments.items() if default is inspect.Parameter.empty
    }
    optional = {key: hints[key] for key in arguments if key not in required}
    _check(given, required, optional, where)
    for key, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and abs(one) > MAX_EXTENT:
                raise UserError(
                    f"{where}: key {key}: expected at most {MAX_EXTENT}, got {_show(value)}"
                )
    values = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _inputs(
    entry: Mapping[str, Any],
    kind: type[Layer],
    where: str,
    known: list[str],
    later: Iterable[object],
) -> list[str]:
    """The names under `inputs`, none where the layer takes what is before it."""
    inputs = entry.get("inputs", [])
    if not _fits(inputs, list[str]) or ("inputs" in entry and not inputs):
        raise UserError(f"{where}: key inputs: expected a list of names, got {_show(inputs)}")
    for value in inputs:
        if value in later:
            raise UserError(f"{where}: key inputs: {value} is not before this layer in the file")
        if value not in known:
            raise UserError(
                f"{where}: key inputs: no layer is named {_show(value)}{_known(value, known)}"
            )
    if count := kind.takes(len(inputs) or 1):
        expected = "one name" if count == "1" else f"{count} names"
        raise UserError(
            f"{where}: key inputs: {entry['type']} takes {expected}, got {len(inputs) or 1}"
        )
    return list(inputs)


def encode(network: Network) -> str:
    """A network as the text of a network file, its last dense layer (or convolution) adapting to
    the classes."""
    if extra := network.defaults.keys() - DEFAULTS.keys():
        raise ValueError(f"{network.name}: no place in a network file for {sorted(extra)}")
    lines = [
        f"name = {_show(network.name)}",
        f"input = {_show(network.input_shape)}",
        f"classes = {network.classes}",
        *(f"{key} = {_show(value)}" for key, value in network.defaults.items()),
    ]
    weighted = (layers.Convolution, layers.Dense)
    head = next(
        (node for node in reversed(network.nodes) if isinstance(node.layer, weighted)), None
    )
    before = IMAGES
    for node in network.nodes:
        lines += [
            "",
            "[[layer]]",
            f"name = {_show(node.name)}",
            f"type = {_show(type_of(node.layer))}",
        ]
        for key, value in _differing(node.layer).items():
            adapts = node is head and key in ADAPTING and value == network.classes
            lines.append(f"{key} = {_show('classes' if adapts else value)}")
        if node.inputs != (before,):
            lines.append(f"inputs = {_show(node.inputs)}")
        before = node.name
    return "\n".join(lines) + "\n"


def _arguments(kind: type[Layer]) -> dict[str, Any]:
    """A layer's constructor arguments and their defaults, `inspect.Parameter.empty` where it has
    none."""
    return {key: argument.default for key, argument in inspect.signature(kind).parameters.items()}


def _differing(layer: Layer) -> dict[str, Any]:
    """The arguments a layer must be made with, and those that differ from their defaults."""
    arguments = {key: _short(_argument(layer, key)) for key in _arguments(type(layer))}
    required = {
        key: arguments[key]
        for key, default in _arguments(type(layer)).items()
        if default is inspect.Parameter.empty
    }
    # Compared with a layer made of the required ones, because a constructor may turn a default into
    # something else (a pool's stride None into its kernel).
    plain = type(layer)(**required)
    return {
        key: value
        for key, value in arguments.items()
        if key in required or value != _short(_argument(plain, key))
    }


def _argument(layer: Layer, key: str) -> Any:
    """What a layer was made with: its attribute of that name, or has_NAME where NAME is a
    parameter's (bias)."""
    return getattr(layer, f"has_{key}" if hasattr(layer, f"has_{key}") else key)


def _short(value: Any) -> Any:
    """A size (5, 5) as 5."""
    return value[0] if isinstance(value, (tuple, list)) and len(set(value)) == 1 else value


def _check(
    given: Mapping[str, Any], required: Mapping[str, Any], optional: Mapping[str, Any], where: str
) -> None:
    """Raise UserError for a key that is missing, unknown or of the wrong type."""
    for key in given:
        if key not in required and key not in optional:
            raise UserError(f"{where}: unknown key {key}{_known(key, [*required, *optional])}")
    for key, hint in {**required, **optional}.items():
        if key not in given:
            if key in required:
                raise UserError(f"{where}: missing key {key} ({_words(hint)})")
        elif not _fits(given[key], hint):
            raise UserError(f"{where}: key {key}: expected {_words(hint)}, got {_show(given[key])}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value can be an argument of that type. Any sequence of an argument is a size:
    two numbers."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(
            _fits(one, typing.get_args(hint)[0]) for one in value
        )
    if origin is dict:
        return isinstance(value, dict)
    if origin is not None:
        return isinstance(value, list) and len(value) == 2 and all(_fits(one, int) for one in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """A type for a reader."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            _words(one) for one in typing.get_args(hint) if one is not types.NoneType
        )
    if origin is list:
        many = {int: "whole numbers", str: "names"}
        return f"a list of {many.get(typing.get_args(hint)[0], 'tables')}"
    if origin is not None:
        return "two of them [height, width]"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[hint]


def _known(name: object, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the one that was meant, or all that there are if
    they are few."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) <= 20 else ""


def _show(value: Any) -> str:
    """A value as TOML (and in errors as the file has it, as far as it can be told)."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_show(one) for one in value)}]"
    if isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    return str(value)
