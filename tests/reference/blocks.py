"""The few layers that all reference networks share.

Kernel sizes are (height, width), as the papers print them: 1×7 is one row of seven. Shapes are (N, C, H, W).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BN_EPS = 1e-3


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, ReLU; the padding is the same on both sides."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class ConvBias(nn.Module):
    """Convolution with bias, ReLU, no batch norm: GoogLeNet as published."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


def pad_for_stride_2(x: Tensor, kernel_size: int, fill: float) -> Tensor:
    """Pad as TensorFlow's "SAME" does before a layer of stride 2: ceil(n / 2) outputs, the odd pixel after the image.

    A 7×7 kernel gets 2 before and 3 after on an even side, 3 and 3 on an odd one; a 3×3 kernel 0 and 1, or 1 and 1;
    a 2×2 kernel nothing, or 0 and 1.
    """
    height, width = x.shape[2], x.shape[3]
    rows = kernel_size - 2 if height % 2 == 0 else kernel_size - 1
    columns = kernel_size - 2 if width % 2 == 0 else kernel_size - 1
    top, left = rows // 2, columns // 2
    return F.pad(x, (left, columns - left, top, rows - top), value=fill)


class SameMaxPool2(nn.Module):
    """Max pool of stride 2, padded as TensorFlow's "SAME" does; the padding never wins."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_for_stride_2(x, self.kernel_size, float("-inf")), self.kernel_size, stride=2)


def average_pool_3x3(x: Tensor) -> Tensor:
    """3×3 average at stride 1 over the pixels that exist: at a border the padding is left out of the mean."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def global_average(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, C)."""
    return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
