"""The gradient of a bias: the sum of dy over images and pixels, for convolutions and dense
layers."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import parts
from mpitrain.layers.flat import shares, shares_of
from mpitrain.runtime.array import Array


class BiasGradient:
    """dbias[k] = sum over n, i of dy[n][k][i], for dy of images of some pixels, or for rows (None).

    On the way it can do the gradient of a ReLU before it, on devices with blocks of channels: dy =
    dy where y > 0, in place.
    """

    def __init__(self, device: Engine, channels: int, pixels: int | None) -> None:
        self._device, self._channels, self._pixels = device, channels, pixels
        self._blocked = pixels is not None and device.format.block > 1
        self._block = device.format.block_of(channels)
        self._blocks = parts(channels, self._block)
        if self._blocked:
            facts = device.format.numbers((channels, 1, pixels or 1)).definitions
            self._kernels = device.program("bias_blocks", BLOCK=self._block, **facts)
        else:
            self._kernels = device.program("bias")
        self._shares = shares(device, self._blocks)

    @property
    def workspace(self) -> int:
        """Float32 values of scratch."""
        return self._shares * self._blocks * self._block if self._blocked else 0

    def __call__(
        self,
        dbias: Array | None,
        dy: Array,
        y: Array | None,
        images: int,
        accumulate: bool,
        scratch: Array,
    ) -> None:
        """Zero dy where y is not above 0 (None: nowhere); then set dbias, or add to it when
        `accumulate` (None: neither)."""
        if self._blocked:
            pixels, group = self._pixels or 1, self._device.group
            count = shares_of(self._device, self._shares, images, pixels)
            self._kernels.partial_sums(
                (self._blocks * group, count),
                scratch,
                dy,
                y or dy,
                images,
                pixels,
                int(y is not None),
                group=(group, 1),
            )
            if dbias is not None:
                self._kernels.finish(
                    self._blocks * group,
                    dbias,
                    scratch,
                    self._channels,
                    count,
                    int(accumulate),
                    group=group,
                )
            return
        assert dbias is not None and y is None, "only layers on blocks take on a ReLU"
        sizes = (images, self._channels, self._pixels or 1, int(accumulate))
        if self._pixels is None:
            self._kernels.bias_gradient_rows(
                parts(self._channels, self._device.wide), dbias, dy, *sizes
            )
        else:
            group = self._device.group
            self._kernels.bias_gradient(self._channels * group, dbias, dy, *sizes, group=group)
