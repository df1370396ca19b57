"""One rank of PyTorch's DistributedDataParallel over gloo: steps of a network, timed; started by
ddp.py on each host.

    python benchmarks/side_ddp.py NETWORK BATCH STEPS HOOK RANK RANKS

Where rank 0 listens stands in MASTER_ADDR and MASTER_PORT. Rank 0 prints its seconds a step as one
line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
from measure import cores
from side_pytorch import DECAY, NETWORKS
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


def register(shared: DistributedDataParallel, hook: str) -> None:
    """The way gradients travel: float32, float16 or powersgd."""
    if hook == "float16":
        shared.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif hook == "powersgd":
        state = powerSGD_hook.PowerSGDState(None, 4, start_powerSGD_iter=2)
        shared.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


def main(network: str, batch: int, steps: int, hook: str, rank: int, ranks: int) -> None:
    torch.set_num_threads(max(1, cores() // ranks))
    torch.manual_seed(0)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    module = NETWORKS[network]().train().to(memory_format=torch.channels_last)
    shared = DistributedDataParallel(module)
    register(shared, hook)
    settings: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": DECAY[network]}
    optimizer = torch.optim.SGD(module.parameters(), fused=True, **settings)
    own = batch // ranks
    shape, classes = ((1, 28, 28), 10) if network == "lenet" else ((3, 224, 224), 1000)
    images = torch.randint(0, 256, (4 * own, *shape), dtype=torch.uint8)
    labels = torch.randint(0, classes, (4 * own,))
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        drawn = torch.randint(0, len(images), (own,))
        x = images[drawn].float().mul_(1 / (255 * 0.25)).sub_(2)
        optimizer.zero_grad()
        scores = shared(x.contiguous(memory_format=torch.channels_last))
        functional.cross_entropy(scores, labels[drawn]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        print(json.dumps(seconds), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    main(name, int(numbers[0]), int(numbers[1]), numbers[2], int(numbers[3]), int(numbers[4]))
