"""One rank of PyTorch's DistributedDataParallel over gloo that trains until a given accuracy;
started by to_accuracy.py on each host.

    python benchmarks/side_reach.py SETTINGS HOOK SEED RANK RANKS

SETTINGS is a file of JSON: network, data (.npz), batch, lr, cosine, steps, every, target. Where
rank 0 listens stands in MASTER_ADDR and MASTER_PORT. Rank 0 prints one line of JSON: the seconds of
each step, and the top-1 after which steps; the test images count in no step's seconds.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from measure import cores
from side_ddp import register
from side_pytorch import NETWORKS
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


class Resnet8(nn.Module):
    """As accuracy.py's: three stages of one block with 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = _convolution(3, 16, 3, 1)
        self.blocks = nn.ModuleList()
        before = 16
        for stage, channels in enumerate((16, 32, 64)):
            stride = 1 + (stage > 0)
            block = nn.ModuleDict(
                {
                    "a": _convolution(before, channels, 3, stride),
                    "b": _convolution(channels, channels, 3, 1),
                }
            )
            if stride > 1:
                block["short"] = _convolution(before, channels, 1, stride)
            self.blocks.append(block)
            before = channels
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        for block in self.blocks:
            y = block["b"](functional.relu(block["a"](x)))
            x = functional.relu(y + (block["short"](x) if "short" in block else x))
        return self.fc(x.mean((2, 3)))


def _convolution(before: int, channels: int, kernel: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(before, channels, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


def main(settings: dict[str, Any], hook: str, seed: int, rank: int, ranks: int) -> None:
    torch.set_num_threads(max(1, cores() // ranks))
    torch.manual_seed(seed)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    with np.load(settings["data"]) as found:
        images, labels, test_images, test_labels = (
            torch.from_numpy(found[name])
            for name in ("images", "labels", "test_images", "test_labels")
        )
    channels = (0, 2, 3)
    whole = images.float() / 255
    mean, deviation = whole.mean(channels)[:, None, None], whole.std(channels)[:, None, None]
    del whole

    def prepared(some: torch.Tensor) -> torch.Tensor:
        x = (some.float() / 255 - mean) / deviation
        return x.contiguous(memory_format=torch.channels_last)

    module = Resnet8() if settings["network"] == "resnet8" else NETWORKS[settings["network"]]()
    module = module.train().to(memory_format=torch.channels_last)
    shared = DistributedDataParallel(module)
    register(shared, hook)
    optimizer = torch.optim.SGD(module.parameters(), lr=settings["lr"], momentum=0.9, fused=True)
    batch, steps, every = settings["batch"], settings["steps"], settings["every"]
    order, seconds, scores = np.random.default_rng(seed), [], []
    numbers = np.empty(0, np.int64)
    for step in range(steps):
        begin = time.perf_counter()
        if len(numbers) < batch:
            numbers = order.permutation(len(images))
        drawn, numbers = torch.from_numpy(numbers[:batch][rank::ranks]), numbers[batch:]
        if settings["cosine"]:
            for group in optimizer.param_groups:
                group["lr"] = settings["lr"] * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        functional.cross_entropy(shared(prepared(images[drawn])), labels[drawn]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
        if (step + 1) % every == 0:
            scores.append((step + 1, _top1(module, prepared, test_images, test_labels)))
            if scores[-1][1] >= settings["target"]:
                break
    if rank == 0:
        print(json.dumps({"seconds": seconds, "scores": scores}), flush=True)
    dist.destroy_process_group()


def _top1(module: nn.Module, prepared: Any, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Of rank 0's module, by all ranks: its running statistics are the ones that count."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for buffer in module.buffers():
        dist.broadcast(buffer, 0)
    module.eval()
    right = 0
    with torch.no_grad():
        for at in range(rank * 250, len(images), ranks * 250):
            scores = module(prepared(images[at : at + 250]))
            right += int((scores.argmax(1) == labels[at : at + 250]).sum())
    module.train()
    total = torch.tensor(float(right))
    dist.all_reduce(total)
    return float(total) / len(images)


if __name__ == "__main__":
    path, way, *rest = sys.argv[1:]
    main(json.loads(Path(path).read_text()), way, *(int(word) for word in rest))
