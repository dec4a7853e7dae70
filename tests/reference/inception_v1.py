"""Inception-v1 (GoogLeNet), arXiv:1409.4842, table 1: as published, and as released with batch norm.

All padding is "same" as TensorFlow does it: a layer of stride 2 on an even side gets its odd pixel after the image.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import BN_EPS, ConvBias, ConvBN, SameMaxPool2, global_average, pad_for_stride_2


class PaperModule(nn.Module):
    """Figure 2b: 1×1 | 1×1→3×3 | 1×1→5×5 | max pool→1×1, with biases."""

    def __init__(
        self,
        in_channels: int,
        out_1x1: int,
        reduce_3x3: int,
        out_3x3: int,
        reduce_5x5: int,
        out_5x5: int,
        out_pool: int,
    ) -> None:
        super().__init__()
        self.one_1x1 = ConvBias(in_channels, out_1x1, 1)
        self.three_1x1 = ConvBias(in_channels, reduce_3x3, 1)
        self.three_3x3 = ConvBias(reduce_3x3, out_3x3, 3, padding=1)
        self.five_1x1 = ConvBias(in_channels, reduce_5x5, 1)
        self.five_5x5 = ConvBias(reduce_5x5, out_5x5, 5, padding=2)
        self.pool_1x1 = ConvBias(in_channels, out_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        five = self.five_5x5(self.five_1x1(x))
        pool = self.pool_1x1(F.max_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([one, three, five, pool], 1)


class GoogLeNet(nn.Module):
    """As published: 5×5 branches, convolution biases, local response norm, no batch norm."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=0, bias=True)
        self.pool1 = SameMaxPool2(3)
        self.norm1 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        self.conv2 = ConvBias(64, 64, 1)
        self.conv3 = ConvBias(64, 192, 3, padding=1)
        self.norm2 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        self.pool2 = SameMaxPool2(3)
        self.mixed_3a = PaperModule(192, 64, 96, 128, 16, 32, 32)
        self.mixed_3b = PaperModule(256, 128, 128, 192, 32, 96, 64)
        self.pool3 = SameMaxPool2(3)
        self.mixed_4a = PaperModule(480, 192, 96, 208, 16, 48, 64)
        self.mixed_4b = PaperModule(512, 160, 112, 224, 24, 64, 64)
        self.mixed_4c = PaperModule(512, 128, 128, 256, 24, 64, 64)
        self.mixed_4d = PaperModule(512, 112, 144, 288, 32, 64, 64)
        self.mixed_4e = PaperModule(528, 256, 160, 320, 32, 128, 128)
        self.pool4 = SameMaxPool2(3)
        self.mixed_5a = PaperModule(832, 256, 160, 320, 32, 128, 128)
        self.mixed_5b = PaperModule(832, 384, 192, 384, 48, 128, 128)
        self.dropout = nn.Dropout(0.4)
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(pad_for_stride_2(x, 7, 0.0)))
        x = self.norm1(self.pool1(x))
        x = self.norm2(self.conv3(self.conv2(x)))
        x = self.pool2(x)
        x = self.pool3(self.mixed_3b(self.mixed_3a(x)))
        x = self.mixed_4c(self.mixed_4b(self.mixed_4a(x)))
        x = self.pool4(self.mixed_4e(self.mixed_4d(x)))
        x = self.mixed_5b(self.mixed_5a(x))
        return self.linear(self.dropout(global_average(x)))


class SlimModule(nn.Module):
    """1×1 | 1×1→3×3 | 1×1→3×3 | max pool→1×1, with batch norm: the released third branch has no 5×5."""

    def __init__(
        self,
        in_channels: int,
        out_1x1: int,
        reduce_3x3: int,
        out_3x3: int,
        reduce_third: int,
        out_third: int,
        out_pool: int,
    ) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(in_channels, out_1x1, 1)
        self.three_1x1 = ConvBN(in_channels, reduce_3x3, 1)
        self.three_3x3 = ConvBN(reduce_3x3, out_3x3, 3, padding=1)
        self.third_1x1 = ConvBN(in_channels, reduce_third, 1)
        self.third_3x3 = ConvBN(reduce_third, out_third, 3, padding=1)
        self.pool_1x1 = ConvBN(in_channels, out_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        third = self.third_3x3(self.third_1x1(x))
        pool = self.pool_1x1(F.max_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([one, three, third, pool], 1)


class InceptionV1Slim(nn.Module):
    """As released: batch norm, no local response norm, and a 2×2 window in the last max pool."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=0, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=BN_EPS)
        self.pool1 = SameMaxPool2(3)
        self.conv2 = ConvBN(64, 64, 1)
        self.conv3 = ConvBN(64, 192, 3, padding=1)
        self.pool2 = SameMaxPool2(3)
        self.mixed_3a = SlimModule(192, 64, 96, 128, 16, 32, 32)
        self.mixed_3b = SlimModule(256, 128, 128, 192, 32, 96, 64)
        self.pool3 = SameMaxPool2(3)
        self.mixed_4a = SlimModule(480, 192, 96, 208, 16, 48, 64)
        self.mixed_4b = SlimModule(512, 160, 112, 224, 24, 64, 64)
        self.mixed_4c = SlimModule(512, 128, 128, 256, 24, 64, 64)
        self.mixed_4d = SlimModule(512, 112, 144, 288, 32, 64, 64)
        self.mixed_4e = SlimModule(528, 256, 160, 320, 32, 128, 128)
        self.pool4 = SameMaxPool2(2)
        self.mixed_5a = SlimModule(832, 256, 160, 320, 32, 128, 128)
        self.mixed_5b = SlimModule(832, 384, 192, 384, 48, 128, 128)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(pad_for_stride_2(x, 7, 0.0))))
        x = self.pool1(x)
        x = self.pool2(self.conv3(self.conv2(x)))
        x = self.pool3(self.mixed_3b(self.mixed_3a(x)))
        x = self.mixed_4c(self.mixed_4b(self.mixed_4a(x)))
        x = self.pool4(self.mixed_4e(self.mixed_4d(x)))
        x = self.mixed_5b(self.mixed_5a(x))
        return self.linear(self.dropout(global_average(x)))
