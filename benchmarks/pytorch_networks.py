"""AlexNet, DenseNet121 and MobileNetV2 for PyTorch's side of a comparison: torchvision's layers,
their ReLUs in place as there."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def alexnet() -> nn.Module:
    layers: list[nn.Module] = []
    for channels, width, kernel, stride, padding, pooled in (
        (3, 64, 11, 4, 2, True),
        (64, 192, 5, 1, 2, True),
        (192, 384, 3, 1, 1, False),
        (384, 256, 3, 1, 1, False),
        (256, 256, 3, 1, 1, True),
    ):
        layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(3, 2)] if pooled else []
    layers += [nn.AdaptiveAvgPool2d(6), nn.Flatten()]
    for inputs in (256 * 6 * 6, 4096):
        layers += [nn.Dropout(), nn.Linear(inputs, 4096), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(4096, 1000))


class DenseBlock(nn.Module):
    """Layers of 32 channels each, from all values before them."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(*_activated(channels + 32 * layer, 128, 1), *_activated(128, 32, 3))
            for layer in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer in self.layers:
            values.append(layer(torch.cat(values, 1)))
        return torch.cat(values, 1)


def _activated(channels: int, width: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), convolution]


def densenet121() -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = 64
    for stage, count in enumerate((6, 12, 24, 16), start=1):
        layers.append(DenseBlock(channels, count))
        channels += 32 * count
        if stage < 4:
            layers += [*_activated(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 1000))


def _normalised(
    channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, 1, groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]


class InvertedResidual(nn.Module):
    """Wide between narrow ends."""

    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.branch = nn.Sequential(
            *(_normalised(channels, wide, 1) if expansion > 1 else []),
            *_normalised(wide, wide, 3, stride, wide),
            nn.Conv2d(wide, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        return x + y if self.adds else y


def mobilenetv2() -> nn.Module:
    layers, channels = _normalised(3, 32, 3, 2), 32
    for expansion, width, blocks, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for block in range(blocks):
            step = stride if block == 0 else 1
            layers.append(InvertedResidual(channels, width, expansion, step))
            channels = width
    layers += [*_normalised(channels, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, 1000))
