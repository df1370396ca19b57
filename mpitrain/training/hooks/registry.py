"""The hooks of a training, in the order in which they run after a step."""

from __future__ import annotations

from collections.abc import Callable

from mpitrain.training.hooks.advise import Advise
from mpitrain.training.hooks.balance import Divide
from mpitrain.training.hooks.checkpoint import Checkpoint
from mpitrain.training.hooks.compare import Compare
from mpitrain.training.hooks.ending import Ending
from mpitrain.training.hooks.evaluate import Evaluate
from mpitrain.training.hooks.hook import Hook
from mpitrain.training.hooks.trace import TraceFile, TraceSteps
from mpitrain.training.hooks.words import Words
from mpitrain.training.plan import Plan

HOOKS: list[Callable[[Plan], Hook]] = [
    TraceSteps,
    Divide,
    Compare,
    Words,
    Advise,
    Evaluate,
    Checkpoint,
    TraceFile,
    Ending,
]
"""How each is made for a plan. A signal gives little time, so on one nothing slow stands before the
checkpoint."""


def make_hooks(plan: Plan) -> list[Hook]:
    """The hooks of one run."""
    return [make(plan) for make in HOOKS]
