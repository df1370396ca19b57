"""The numbers of a convolution, worked out once and handed to every algorithm."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Geometry:
    """One image's convolution of one group: x (C, H, W) with weight (K, C, R, S) gives y (K, P,
    Q)."""

    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    p: int
    q: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    """x has C * groups channels in all, y K * groups."""

    @property
    def x_image(self) -> int:
        """Values between two images of x."""
        return self.groups * self.c * self.h * self.w

    @property
    def y_image(self) -> int:
        """Values between two images of y."""
        return self.groups * self.k * self.p * self.q

    @property
    def flops(self) -> int:
        """Multiplications and additions of one image's forward pass."""
        return 2 * self.groups * self.k * self.c * self.r * self.s * self.p * self.q

    def __str__(self) -> str:
        """Its numbers in one line, by which measurements of it are kept."""
        (u, v), (pad_h, pad_w) = self.stride, self.padding
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        return (
            f"{self.c}x{self.h}x{self.w} to {self.k}, {self.r}x{self.s}, "
            f"stride {u}x{v}, padding {pad_h}x{pad_w}{groups}"
        )

    def flattened(self) -> Geometry:
        """The same convolution with an image seen as one long row, where that changes nothing (1x1,
        stride 1, no padding)."""
        if (self.r, self.s, self.stride, self.padding) != (1, 1, (1, 1), (0, 0)):
            return self
        return replace(self, h=1, w=self.h * self.w, p=1, q=self.p * self.q)
