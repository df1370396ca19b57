"""Makes the files in tests/job/pth with PyTorch: python tests/job/make_pth.py.

Tests read them without it, and know what is in them: `values` says so.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLACE = Path(__file__).parent / "pth"


def values() -> dict[str, NDArray[Any]]:
    """What each file holds, bfloat16 as the float32 that it is; "view" is a transposed part of a
    larger storage."""
    whole = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
    return {
        "conv.weight": np.linspace(-2, 2, 18, dtype=np.float32).reshape(2, 1, 3, 3),
        "conv.bias": np.array([0.5, -0.25], np.float32),
        "bn.running_mean": np.array([1.5, 2.5], np.float32),
        "bn.num_batches_tracked": np.array(7),
        "half": np.array([0.5, 65504.0], np.float16),
        "double": np.array([1 / 3]),
        "brain": np.array([1.0, -3.140625], np.float32),
        "view": whole[1:3, 2:5].T,
        "nothing": np.zeros((0, 3), np.float32),
        "yes": np.array([True, False]),
    }


def main() -> None:
    import torch

    found: OrderedDict[str, Any] = OrderedDict()
    for name, array in values().items():
        found[name] = torch.from_numpy(np.array(array))
    found["brain"] = found["brain"].to(torch.bfloat16)
    found["view"] = (torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8)[1:3, 2:5].T
    found["conv.weight"] = torch.nn.Parameter(found["conv.weight"])
    found._metadata = OrderedDict({"": {"version": 1}})  # as nn.Module.state_dict has it
    PLACE.mkdir(exist_ok=True)
    torch.save(found, PLACE / "now.pth")
    torch.save(found, PLACE / "old.pth", _use_new_zipfile_serialization=False)
    training = torch.nn.Linear(2, 2)
    steps = torch.optim.SGD(training.parameters(), 0.1, momentum=0.9)
    more = {"epoch": 3, "optimizer": steps.state_dict(), "arch": "small"}
    torch.save({**more, "state_dict": found}, PLACE / "checkpoint.pth")
    torch.save(training, PLACE / "module.pth")


if __name__ == "__main__":
    main()
