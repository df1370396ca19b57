"""LeNet, VGG11 and ResNet18 in plain torch.nn under torchvision's names, and one step of them
(needs PyTorch)."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from inputs import CASES
from torch import Tensor, nn


def lenet(classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(800, 500),
            relu1=nn.ReLU(),
            fc2=nn.Linear(500, classes),
        )
    )


def vgg11(classes: int) -> nn.Module:
    """Without dropout, which would sit at classifier.2 and classifier.5; 64x64 images leave 512x2x2
    features."""
    features: list[nn.Module] = []
    channels = 3
    for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        if width:
            features += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            features.append(nn.MaxPool2d(2))
    classifier = [
        nn.Linear(512 * 2 * 2, 4096),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(4096, classes),
    ]
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(*classifier),
        )
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            shortcut = nn.Conv2d(channels, width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def resnet18(classes: int) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        first = BasicBlock(channels, width, 1 if stage == 1 else 2)
        layers[f"layer{stage}"] = nn.Sequential(first, BasicBlock(width, width, 1))
        channels = width
    layers.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(512, classes))
    return nn.Sequential(layers)


BUILDERS = {"lenet": lenet, "vgg11": vgg11, "resnet18": resnet18}


def shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter, in PyTorch's order."""
    with torch.device("meta"):
        module = BUILDERS[network](CASES[network].classes)
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def load(
    network: str, weights: dict[str, np.ndarray], dtype: torch.dtype = torch.float64
) -> nn.Module:
    """The network with these weights, in training mode."""
    with torch.device("meta"):
        module = BUILDERS[network](CASES[network].classes)
    module = module.to_empty(device="cpu").to(dtype).train()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
        for (
            name,
            buffer,
        ) in module.named_buffers():  # running statistics: training neither reads nor returns them
            buffer.fill_(1 if name.endswith("running_var") else 0)
    return module


def step(
    network: str,
    images: np.ndarray,
    labels: np.ndarray,
    weights: dict[str, np.ndarray],
    dtype: torch.dtype = torch.float64,
) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """(loss, scores, gradients) of one pass in training mode; the loss, and so each gradient, is a
    sum over the images."""
    module = load(network, weights, dtype)
    scores = module(torch.from_numpy(images).to(dtype))
    loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels), reduction="sum")
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    return float(loss.detach()), scores.detach().numpy(), gradients


@torch.no_grad()
def margin(module: nn.Module, images: np.ndarray) -> float:
    """How close the forward pass comes to a tie, at a ReLU (x = 0) or between the two largest of a
    max pool's window.

    In units of the root mean square of what enters that layer; float64.
    """
    gaps: list[float] = []

    def relu(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        (x,) = inputs
        gaps.append(float(x.abs().min() / x.square().mean().sqrt()))

    def pool(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        (x,) = inputs
        n, c, h, w = x.shape
        windows = nn.functional.unfold(
            x.reshape(n * c, 1, h, w),
            module.kernel_size,
            padding=module.padding,
            stride=module.stride,
        )
        first, second = windows.topk(2, dim=1).values.unbind(1)
        gap = (first - second)[
            first != 0
        ]  # all zeros after a ReLU: nothing flows back whichever is chosen
        gaps.append(float(gap.min() / x.square().mean().sqrt()))

    found = (
        (child, {nn.ReLU: relu, nn.MaxPool2d: pool}.get(type(child))) for child in module.modules()
    )
    handles = [child.register_forward_hook(hook) for child, hook in found if hook is not None]
    module(torch.from_numpy(images).double())
    for handle in handles:
        handle.remove()
    return min(gaps)
