"""PyTorch's side of a comparison: the same steps and convolutions in plain float32 on all cores.
Runs in any Python that has torch.

On one core (and with less than 16 images) PyTorch leaves 1x1 convolutions to a slower path than
oneDNN's: ResNet's figures there say nothing about more cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from measure import SideError, cores, peak_memory, seconds_of, serve

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
except ImportError:
    torch = None  # `open` says so: the other side is then told in a sentence

works: dict[str, Callable[[], float]] = {}
losses: list[float] = []


def open_() -> dict[str, Any]:
    """Versions and what PyTorch computes with."""
    if torch is None:
        raise SideError(
            f"PyTorch is not there for {sys.executable}: `pip install torch` (or mpitrain[peers]) "
            "brings it, "
            "or --torch-python names a Python that has it"
        )
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    about = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    said = ("Math Kernel Library", "MKL-DNN", "oneDNN", "OpenMP", "CPU capability")
    settings = next((line for line in about if line.startswith("Build settings")), "")
    blas = [
        each.strip() for each in settings.split(",") if "BLAS_INFO" in each or "LAPACK_INFO" in each
    ]
    return {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "blas": blas + [line for line in about if any(each in line for each in said)],
        "memory": peak_memory(),
    }


def layout_of(name: str) -> Any:
    return torch.channels_last if name == "channels-last" else torch.contiguous_format


HELD = 256
"""Images in host memory from which batches are drawn."""
DECAY = {"lenet": 0.0, "vgg16": 5e-4, "resnet152": 1e-4}


def step(network: str, batch: int, layout: str) -> dict[str, Any]:
    """Prepare "step": a batch of uint8 images drawn from host memory in, momentum SGD's update
    out."""
    module = NETWORKS[network]().train().to(memory_format=layout_of(layout))
    settings: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": DECAY[network]}
    fused = True
    # One pass over the weights instead of four: not what torch.optim takes by itself, but to be had
    # by one word.
    try:
        optimizer = torch.optim.SGD(module.parameters(), fused=True, **settings)
    except (RuntimeError, TypeError, ValueError):  # before 2.4 not on CPUs
        optimizer, fused = torch.optim.SGD(module.parameters(), **settings), False
    shape = (1, 28, 28) if network == "lenet" else (3, 224, 224)
    classes = 10 if network == "lenet" else 1000
    images = torch.randint(0, 256, (HELD, *shape), dtype=torch.uint8)
    labels = torch.randint(0, classes, (HELD,))

    def work() -> None:
        drawn = torch.randint(0, HELD, (batch,))
        x = (
            images[drawn]
            .float()
            .mul_(1 / (255 * 0.25))
            .sub_(2)
            .contiguous(memory_format=layout_of(layout))
        )
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(x), labels[drawn])
        loss.backward()
        optimizer.step()
        losses[:] = [loss.item()]

    works["step"] = partial(seconds_of, work)
    return {
        "parameters": sum(each.numel() for each in module.parameters()),
        "optimizer": "SGD, fused" if fused else "SGD",
    }


def gpu_step(network: str, batch: int, layout: str, precision: str) -> dict[str, Any]:
    """Prepare "step" on a GPU: pinned uint8 images in, momentum SGD's update out; seconds of one of
    several steps in a row, whose losses are read one step late.

    precision: float32 (strict), tf32, or bf16 (autocast).
    """
    works.clear()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    set_precision(precision)
    form = layout_of(layout)
    module = NETWORKS[network]().cuda().train().to(memory_format=form)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=1e-3, momentum=0.9, weight_decay=DECAY[network], fused=True
    )
    shape = (1, 28, 28) if network == "lenet" else (3, 224, 224)
    images = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8).pin_memory()
    labels = torch.randint(0, 10 if network == "lenet" else 1000, (batch,)).pin_memory()
    last: list[Tensor] = []

    def one() -> None:
        x = images.cuda(non_blocking=True).float().mul_(1 / (255 * 0.25)).sub_(2)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            scores = module(x.contiguous(memory_format=form))
            loss = functional.cross_entropy(scores, labels.cuda(non_blocking=True))
        loss.backward()
        optimizer.step()
        losses[:] = [each.item() for each in last]
        last[:] = [loss.detach()]

    def work() -> float:
        steps = 50 if network == "lenet" else 10
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(steps):
            one()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) / steps

    for _ in range(5):
        one()
    works["step"] = work
    return {"parameters": sum(each.numel() for each in module.parameters())}


def set_precision(precision: str) -> None:
    """How a GPU multiplies, by the fastest way that cuDNN can find."""
    torch.backends.cudnn.benchmark = True
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def gpu_facts() -> dict[str, Any]:
    """The GPU, its driver's CUDA, cuDNN, and the peak of PyTorch's allocations."""
    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "peak_memory": torch.cuda.max_memory_allocated(),
    }


def convolution(
    shape: Sequence[int],
    channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
    bias: bool,
    batch: int,
    layout: str,
    on: str = "cpu",
    precision: str = "float32",
) -> None:
    """Prepare "forward", "backward filter" (and bias) and "backward data" of one. Each run
    allocates its result, as in training.

    on: "cpu" or "cuda"; there with a precision as `gpu_step` has them.
    """
    set_precision(precision)
    like: dict[str, Any] = {"device": on}
    like["dtype"] = torch.bfloat16 if precision == "bf16" else torch.float32
    to = partial(torch.Tensor.contiguous, memory_format=layout_of(layout))
    x = to(torch.randn(batch, *shape, **like))
    weight = to(0.1 * torch.randn(channels, shape[0] // groups, *kernel, **like))
    b = torch.randn(channels, **like) if bias else None

    def forward() -> Tensor:
        return functional.conv2d(x, weight, b, stride, padding, 1, groups)

    dy = to(torch.randn_like(forward()))

    def backward(mask: list[bool]) -> None:
        torch.ops.aten.convolution_backward(
            dy,
            x,
            weight,
            [channels] if bias else None,
            stride,
            padding,
            [1, 1],
            False,
            [0, 0],
            groups,
            mask,
        )

    passes: dict[str, Callable[[], Any]] = {
        "forward": forward,
        "backward filter": partial(backward, [False, True, bias]),
        "backward data": partial(backward, [True, False, False]),
    }
    works.update(
        {f"{name} {layout}": partial(_without_gradients, work, on) for name, work in passes.items()}
    )


def _without_gradients(work: Callable[[], Any], on: str) -> float:
    with torch.no_grad():
        if on == "cpu":
            return seconds_of(work)
        return seconds_of(work, torch.cuda.synchronize, pause=0.0, least=0.02)


def product(precision: str, size: int = 8192) -> float:
    """TFLOPS of a square matrix product on the GPU: the best of ten."""
    set_precision(precision)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device="cuda", dtype=kind) for _ in range(2))
    work = partial(torch.matmul, a, b)
    best = min(seconds_of(work, torch.cuda.synchronize, 0.0, 0.02) for _ in range(10))
    return 2e-12 * size**3 / best


def forget() -> None:
    """Give back what was prepared."""
    works.clear()


def lenet() -> nn.Module:
    """As Caffe's, and ours: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(inplace=True),
        nn.Linear(500, 10),
    )


def vgg16() -> nn.Module:
    """torchvision's."""
    layers: list[nn.Module] = []
    channels = 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(inplace=True),
    ]
    layers += [nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    return _kaiming(nn.Sequential(*layers, nn.Linear(4096, 1000)))


def resnet152() -> nn.Module:
    """torchvision's."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
    ]
    layers += [nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 8, 2), (256, 36, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(_bottleneck()(channels, width, stride if block == 0 else 1))
            channels = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]
    return _kaiming(nn.Sequential(*layers))


def _kaiming(module: nn.Module) -> nn.Module:
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.kaiming_normal_(each.weight, mode="fan_out", nonlinearity="relu")
    return module


def _bottleneck() -> Any:
    """The class, made when torch is known to be there."""

    class Bottleneck(nn.Module):  # type: ignore[misc, unused-ignore]  # unknown where torch is not there
        """relu(1x1, 3x3, 1x1 + shortcut); the 3x3 strides."""

        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = None
            if stride != 1 or channels != 4 * width:
                shortcut = nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.relu(self.bn2(self.conv2(y)))
            y = self.bn3(self.conv3(y))
            y += x if self.downsample is None else self.downsample(x)
            return self.relu(y)

    return Bottleneck


NETWORKS: dict[str, Callable[[], Any]] = {"lenet": lenet, "vgg16": vgg16, "resnet152": resnet152}

if __name__ == "__main__":
    serve(
        {
            "open": open_,
            "step": step,
            "gpu_step": gpu_step,
            "gpu_facts": gpu_facts,
            "convolution": convolution,
            "product": product,
            "forget": forget,
            "time": lambda name: works[name](),
            "loss": lambda: losses[0],
            "memory": peak_memory,
        }
    )
