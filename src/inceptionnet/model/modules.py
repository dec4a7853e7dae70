"""The modules of a network that torch does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Concatenation(nn.ModuleDict):
    """Parallel branches on the same input, concatenated along channels."""

    # torch.jit.script compiles a type of module once, and would take the same branches in another order for the same.
    __constants__: ClassVar[tuple[str, ...]] = ("order",)

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__(branches)
        self.order: tuple[str, ...] = tuple(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, sum of the branches' channels, H', W')."""
        return torch.cat([branch(x) for branch in self.values()], dim=1)


class ResidualBlock(nn.Module):
    """x + scale · closing(branches(x)), then ReLU except in the last block of the release."""

    def __init__(self, branches: nn.Module, closing: nn.Module, scale: float, relu: bool) -> None:
        super().__init__()
        self.branches = branches
        self.closing = closing
        self.scale = scale
        self.relu: nn.ReLU | nn.Identity = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        y: Tensor = self.relu(torch.add(x, self.closing(self.branches(x)), alpha=self.scale))
        return y

    def extra_repr(self) -> str:
        """The scale, for the repr."""
        return f"scale={self.scale}"


class SamePad(nn.Module):
    """TensorFlow's "same" padding for a strided window: the odd pixel of padding goes to the end."""

    def __init__(self, kernel: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H + a few, W + a few)."""
        top, bottom = same_padding(x.shape[2], self.kernel[0], self.stride)
        left, right = same_padding(x.shape[3], self.kernel[1], self.stride)
        return F.pad(x, (left, right, top, bottom))

    def extra_repr(self) -> str:
        """Kernel and stride, for the repr."""
        return f"kernel={self.kernel}, stride={self.stride}"


class SameMaxPool(SamePad):
    """Max pooling with TensorFlow's "same" padding, without materialising it: pixels outside the image are ignored."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, ⌈H / stride⌉, ⌈W / stride⌉)."""
        top, _ = same_padding(x.shape[2], self.kernel[0], self.stride)
        left, _ = same_padding(x.shape[3], self.kernel[1], self.stride)
        # With an odd pixel at the end, the last window extends beyond the border by that pixel.
        return F.max_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=True)


class MaxAvgPool(nn.Module):
    """Global maximum and average: their mean, or both concatenated, the average first, as timm's pools give them."""

    def __init__(self, concatenated: bool) -> None:
        super().__init__()
        self.concatenated = concatenated

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C), or (N, 2 · C)."""
        average, maximum = x.mean((2, 3)), x.amax((2, 3))
        return torch.cat([average, maximum], 1) if self.concatenated else 0.5 * (average + maximum)


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding before and after, along one side; in arithmetic that traces a symbolic length too."""
    total = kernel - 1 - (length - 1) % stride  # never negative: no kernel of the family is smaller than its stride
    return total // 2, total - total // 2
