"""How the learning rate moves from step to step."""

from __future__ import annotations

import math

from mpitrain.job.config import interval


def learning_rate(
    step: int,
    steps: int,
    lr: float,
    schedule: str,
    warmup: int,
    argument: str = "",
    per_epoch: int = 1,
) -> float:
    """The rate of step 0 .. steps - 1.

    warmup: so many steps rise in a line to lr. argument: what stands after the schedule's name and
    a colon. per_epoch: steps in an epoch. Over the steps after the warm-up, of which the share
    `done` is over, the rate is

    constant: lr;
    step: a tenth after 1/2 and again after 3/4, or after each step or epoch of the argument,
    counted from the beginning of the run (PyTorch's MultiStepLR);
    cosine: lr (1 + cos(pi done)) / 2;
    linear: lr (1 - done);
    polynomial: lr (1 - done)^power, the argument or 2.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "step" and argument:
        return lr * math.pow(0.1, sum(step >= each for each in milestones(argument, per_epoch)))
    if schedule == "step":
        return lr * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "linear":
        return lr * (1 - done)
    if schedule == "polynomial":
        power = float(argument) if argument else 2.0
        return lr * math.pow(1 - done, power)
    return lr


def milestones(argument: str, per_epoch: int) -> list[int]:
    """The steps in 100,2ep."""
    return [interval(each, per_epoch, "--schedule step") for each in argument.split(",")]
