"""The gradient of a bias: the sum of dy over images and pixels, for convolutions and dense layers."""

from __future__ import annotations

from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


class BiasGradient:
    """dbias[k] = sum over n, i of dy[n][k][i], for dy (N, channels, pixels); a dense layer has one pixel."""

    def __init__(self, device: Device, channels: int, pixels: int) -> None:
        self._kernels = device.program("bias")
        self._device, self._channels, self._pixels = device, channels, pixels

    def __call__(self, dbias: Array, dy: Array, images: int, accumulate: bool) -> None:
        """Set dbias (channels,), or add to it when `accumulate`."""
        sizes = (images, self._channels, self._pixels, int(accumulate))
        if self._pixels == 1:
            self._kernels.bias_gradient_dense(-(-self._channels // self._device.wide), dbias, dy, *sizes)
        else:
            group = self._device.group
            self._kernels.bias_gradient(self._channels * group, dbias, dy, *sizes, group=group)
