"""Networks of every family in plain torch.nn under torchvision's names, and one step of them
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


def alexnet(classes: int) -> nn.Module:
    """Without dropout, which would sit at classifier.0 and classifier.3; 96x96 images leave 256x2x2
    features."""
    features = [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    classifier = [
        *(nn.Identity(), nn.Linear(256 * 2 * 2, 4096), nn.ReLU()),
        *(nn.Identity(), nn.Linear(4096, 4096), nn.ReLU()),
        nn.Linear(4096, classes),
    ]
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(*classifier),
        )
    )


class DenseLayer(nn.Module):
    """Its 32 channels from all values before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(128), nn.ReLU()
        self.conv2 = nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, values: list[Tensor]) -> Tensor:
        y = self.conv1(self.relu1(self.norm1(torch.cat(values, 1))))
        return self.conv2(self.relu2(self.norm2(y)))


class DenseBlock(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer in self.values():
            values.append(layer(values))
        return torch.cat(values, 1)


def densenet121(classes: int) -> nn.Module:
    features: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(64),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels = 64
    for stage, layers in enumerate((6, 12, 24, 16), start=1):
        features[f"denseblock{stage}"] = DenseBlock(
            {f"denselayer{k + 1}": DenseLayer(channels + 32 * k) for k in range(layers)}
        )
        channels += 32 * layers
        if stage < 4:
            features[f"transition{stage}"] = nn.Sequential(
                OrderedDict(
                    norm=nn.BatchNorm2d(channels),
                    relu=nn.ReLU(),
                    conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
                    pool=nn.AvgPool2d(2),
                )
            )
            channels //= 2
    features.update(norm5=nn.BatchNorm2d(channels), relu5=nn.ReLU())
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(features),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(channels, classes),
        )
    )


def normalised(channels: int, width: int, kernel: int, stride: int, groups: int) -> nn.Module:
    """A convolution, batch normalisation and ReLU6."""
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Wide between narrow ends."""

    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * channels
        first = [normalised(channels, wide, 1, 1, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *first,
            normalised(wide, wide, 3, stride, wide),
            nn.Conv2d(wide, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def mobilenetv2(classes: int) -> nn.Module:
    """Without dropout, which would sit at classifier.0."""
    features = [normalised(3, 32, 3, 2, 1)]
    channels = 32
    for expansion, width, blocks, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for block in range(blocks):
            step = stride if block == 0 else 1
            features.append(InvertedResidual(channels, width, expansion, step))
            channels = width
    features.append(normalised(channels, 1280, 1, 1, 1))
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(nn.Identity(), nn.Linear(1280, classes)),
        )
    )


BUILDERS = {
    "lenet": lenet,
    "vgg11": vgg11,
    "resnet18": resnet18,
    "alexnet": alexnet,
    "densenet121": densenet121,
    "mobilenetv2": mobilenetv2,
}


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
    """How close the forward pass comes to a tie, at a ReLU (x = 0, or 6) or between the two largest
    of a max pool's window.

    In units of the root mean square of what enters that layer; float64.
    """
    gaps: list[float] = []

    def relu(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        (x,) = inputs
        gaps.append(float(x.abs().min() / x.square().mean().sqrt()))

    def relu6(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        (x,) = inputs
        gaps.append(float(torch.minimum(x.abs(), (x - 6).abs()).min() / x.square().mean().sqrt()))

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

    watched = {nn.ReLU: relu, nn.ReLU6: relu6, nn.MaxPool2d: pool}
    found = ((child, watched.get(type(child))) for child in module.modules())
    handles = [child.register_forward_hook(hook) for child, hook in found if hook is not None]
    module(torch.from_numpy(images).double())
    for handle in handles:
        handle.remove()
    return min(gaps)
