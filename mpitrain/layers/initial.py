"""What the weights and the bias of convolutions and dense layers start from."""

from __future__ import annotations

import math

from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Parameter, Shape

CHOICES = ("he", "he_out", "normal", "uniform", "pytorch")
"""he: normal, deviation sqrt(2 / inputs of an output). he_out: sqrt(2 / (channels R S)), PyTorch's
kaiming_normal_ by fan_out. normal: deviation 0.01. uniform: +-1/sqrt(inputs of an output). Biases
are zeros, but under pytorch uniform like the weights: how PyTorch's own layers start."""


def check(initial: str) -> str:
    """The same. Raises UserError if it is none of CHOICES."""
    if initial not in CHOICES:
        raise UserError(f"initial: expected one of {', '.join(CHOICES)}, got {initial!r}")
    return initial


def tensors(shape: Shape, initial: str, bias: bool) -> dict[str, Parameter]:
    """`weight` of that shape (outputs, inputs of one, ...), and with `bias` a `bias` (outputs,)."""
    inputs = math.prod(shape[1:])
    if initial == "he_out":
        weight = Parameter(shape, "he", shape[0] * math.prod(shape[2:]), coded=True)
    elif initial in ("normal", "he"):
        weight = Parameter(shape, "normal" if initial == "normal" else "he", inputs, coded=True)
    else:
        weight = Parameter(shape, "uniform", inputs, coded=True)
    if not bias:
        return {"weight": weight}
    start = Parameter(shape[:1], "uniform" if initial == "pytorch" else "zeros", inputs)
    return {"weight": weight, "bias": start}
