"""Data-parallel training of convolutional networks on whatever OpenCL devices an MPI job has.

As a library: `mpitrain.train(mpitrain.Run("lenet"))`,
`mpitrain.load("step-00000220.safetensors").predict(images)`, and `mpitrain.allreduce(vector,
comm)`. Each is imported when it is asked for, so that `import mpitrain` starts neither MPI nor
OpenCL.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpitrain.exchange.allreduce import allreduce as allreduce
    from mpitrain.job.config import Run as Run
    from mpitrain.network.model import Model as Model
    from mpitrain.network.model import load as load
    from mpitrain.training.train import Result as Result
    from mpitrain.training.train import train as train

__version__ = "0.1.0"
__all__ = ["Model", "Result", "Run", "allreduce", "load", "train"]

_HOMES = {
    "Model": "network.model",
    "Result": "training.train",
    "Run": "job.config",
    "allreduce": "exchange.allreduce",
    "load": "network.model",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mpitrain' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"mpitrain.{_HOMES[name]}"), name)
    return found
