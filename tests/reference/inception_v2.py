"""Inception-v2 (BN-Inception), arXiv:1502.03167, figure 5: as published, and as released.

The two differ in their first convolution only. Padding is "same" as TensorFlow does it, as in inception_v1; average
pools leave the padding out of the mean. 4c and 4d have the pool width that gives the 576 channels the figure prints.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import BN_EPS, ConvBN, SameMaxPool2, average_pool_3x3, global_average, pad_for_stride_2


class Module(nn.Module):
    """1×1 | 1×1→3×3 | 1×1→3×3→3×3 | average pool→1×1."""

    def __init__(
        self,
        in_channels: int,
        out_1x1: int,
        reduce_3x3: int,
        out_3x3: int,
        reduce_double: int,
        out_double: int,
        out_pool: int,
    ) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(in_channels, out_1x1, 1)
        self.three_1x1 = ConvBN(in_channels, reduce_3x3, 1)
        self.three_3x3 = ConvBN(reduce_3x3, out_3x3, 3, padding=1)
        self.double_1x1 = ConvBN(in_channels, reduce_double, 1)
        self.double_3x3_a = ConvBN(reduce_double, out_double, 3, padding=1)
        self.double_3x3_b = ConvBN(out_double, out_double, 3, padding=1)
        self.pool_1x1 = ConvBN(in_channels, out_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = self.pool_1x1(average_pool_3x3(x))
        return torch.cat([one, three, double, pool], 1)


class LastModule(nn.Module):
    """5b: 1024 → 1024, the only module of stride 1 whose pool is a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(1024, 352, 1)
        self.three_1x1 = ConvBN(1024, 192, 1)
        self.three_3x3 = ConvBN(192, 320, 3, padding=1)
        self.double_1x1 = ConvBN(1024, 192, 1)
        self.double_3x3_a = ConvBN(192, 224, 3, padding=1)
        self.double_3x3_b = ConvBN(224, 224, 3, padding=1)
        self.pool_1x1 = ConvBN(1024, 128, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = self.pool_1x1(F.max_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([one, three, double, pool], 1)


class SameConvBN2(nn.Module):
    """3×3 convolution of stride 2 with TensorFlow's "SAME" padding, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=0, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(pad_for_stride_2(x, 3, 0.0))))


class Module3c(nn.Module):
    """320 → 576, half the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.three_1x1 = ConvBN(320, 128, 1)
        self.three_3x3 = SameConvBN2(128, 160)
        self.double_1x1 = ConvBN(320, 64, 1)
        self.double_3x3_a = ConvBN(64, 96, 3, padding=1)
        self.double_3x3_b = SameConvBN2(96, 96)
        self.pool = SameMaxPool2(3)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([three, double, self.pool(x)], 1)


class Module4e(nn.Module):
    """576 → 1024, half the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.three_1x1 = ConvBN(576, 128, 1)
        self.three_3x3 = SameConvBN2(128, 192)
        self.double_1x1 = ConvBN(576, 192, 1)
        self.double_3x3_a = ConvBN(192, 256, 3, padding=1)
        self.double_3x3_b = SameConvBN2(256, 256)
        self.pool = SameMaxPool2(3)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([three, double, self.pool(x)], 1)


class Body(nn.Module):
    """All that follows the first convolution: 112×112×64 → logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pool1 = SameMaxPool2(3)
        self.conv2 = ConvBN(64, 64, 1)
        self.conv3 = ConvBN(64, 192, 3, padding=1)
        self.pool2 = SameMaxPool2(3)
        self.mixed_3a = Module(192, 64, 64, 64, 64, 96, 32)
        self.mixed_3b = Module(256, 64, 64, 96, 64, 96, 64)
        self.mixed_3c = Module3c()
        self.mixed_4a = Module(576, 224, 64, 96, 96, 128, 128)
        self.mixed_4b = Module(576, 192, 96, 128, 96, 128, 128)
        self.mixed_4c = Module(576, 160, 128, 160, 128, 160, 96)
        self.mixed_4d = Module(576, 96, 128, 192, 160, 192, 96)
        self.mixed_4e = Module4e()
        self.mixed_5a = Module(1024, 352, 192, 320, 160, 224, 128)
        self.mixed_5b = LastModule()
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(x)
        x = self.pool2(self.conv3(self.conv2(x)))
        x = self.mixed_3c(self.mixed_3b(self.mixed_3a(x)))
        x = self.mixed_4d(self.mixed_4c(self.mixed_4b(self.mixed_4a(x))))
        x = self.mixed_4e(x)
        x = self.mixed_5b(self.mixed_5a(x))
        return self.linear(self.dropout(global_average(x)))


class BNInception(nn.Module):
    """As published: an ordinary 7×7/2 first convolution with batch norm."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=0, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=BN_EPS)
        self.body = Body(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(F.relu(self.bn1(self.conv1(pad_for_stride_2(x, 7, 0.0)))))


class InceptionV2Slim(nn.Module):
    """As released: the first convolution is depthwise 7×7/2 with eight filters a colour, then 1×1 to 64 with a bias.

    It has no batch norm and nothing between its two parts; a ReLU follows.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 24, 7, stride=2, padding=0, groups=3, bias=False)
        self.pointwise = nn.Conv2d(24, 64, 1, bias=True)
        self.body = Body(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(F.relu(self.pointwise(self.depthwise(pad_for_stride_2(x, 7, 0.0)))))
