"""Inception-v3, arXiv:1512.00567, with the released filter counts, and its two other forms.

The forms differ in pools only: torchvision's average pools count their padding as zeros; the 2015 graph that FID uses
has a max pool in its last module, and 1008 classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ConvBN, global_average


class Module5(nn.Module):
    """5b, 5c, 5d: the 35×35 grid."""

    def __init__(self, in_channels: int, pool_channels: int, pool_counts_padding: bool) -> None:
        super().__init__()
        self.pool_counts_padding = pool_counts_padding
        self.one_1x1 = ConvBN(in_channels, 64, 1)
        self.five_1x1 = ConvBN(in_channels, 48, 1)
        self.five_5x5 = ConvBN(48, 64, 5, padding=2)
        self.double_1x1 = ConvBN(in_channels, 64, 1)
        self.double_3x3_a = ConvBN(64, 96, 3, padding=1)
        self.double_3x3_b = ConvBN(96, 96, 3, padding=1)
        self.pool_1x1 = ConvBN(in_channels, pool_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        five = self.five_5x5(self.five_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=self.pool_counts_padding)
        return torch.cat([one, five, double, self.pool_1x1(pool)], 1)


class Module6a(nn.Module):
    """288 → 768, 35×35 → 17×17."""

    def __init__(self) -> None:
        super().__init__()
        self.three = ConvBN(288, 384, 3, stride=2)
        self.double_1x1 = ConvBN(288, 64, 1)
        self.double_3x3_a = ConvBN(64, 96, 3, padding=1)
        self.double_3x3_b = ConvBN(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(x)
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([three, double, F.max_pool2d(x, 3, stride=2)], 1)


class Module6(nn.Module):
    """6b to 6e: 768 → 768 on the 17×17 grid, `width` channels inside the 7×7 branches."""

    def __init__(self, width: int, pool_counts_padding: bool) -> None:
        super().__init__()
        self.pool_counts_padding = pool_counts_padding
        self.one_1x1 = ConvBN(768, 192, 1)
        self.seven_1x1 = ConvBN(768, width, 1)
        self.seven_1x7 = ConvBN(width, width, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(width, 192, (7, 1), padding=(3, 0))
        self.double_1x1 = ConvBN(768, width, 1)
        self.double_7x1_a = ConvBN(width, width, (7, 1), padding=(3, 0))
        self.double_1x7_a = ConvBN(width, width, (1, 7), padding=(0, 3))
        self.double_7x1_b = ConvBN(width, width, (7, 1), padding=(3, 0))
        self.double_1x7_b = ConvBN(width, 192, (1, 7), padding=(0, 3))
        self.pool_1x1 = ConvBN(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        seven = self.seven_7x1(self.seven_1x7(self.seven_1x1(x)))
        double = self.double_1x7_a(self.double_7x1_a(self.double_1x1(x)))
        double = self.double_1x7_b(self.double_7x1_b(double))
        pool = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=self.pool_counts_padding)
        return torch.cat([one, seven, double, self.pool_1x1(pool)], 1)


class Module7a(nn.Module):
    """768 → 1280, 17×17 → 8×8."""

    def __init__(self) -> None:
        super().__init__()
        self.three_1x1 = ConvBN(768, 192, 1)
        self.three_3x3 = ConvBN(192, 320, 3, stride=2)
        self.seven_1x1 = ConvBN(768, 192, 1)
        self.seven_1x7 = ConvBN(192, 192, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(192, 192, (7, 1), padding=(3, 0))
        self.seven_3x3 = ConvBN(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three_3x3(self.three_1x1(x))
        seven = self.seven_3x3(self.seven_7x1(self.seven_1x7(self.seven_1x1(x))))
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], 1)


class Module7(nn.Module):
    """7b, 7c: → 2048 on the 8×8 grid."""

    def __init__(self, in_channels: int, pool_counts_padding: bool, max_pools: bool) -> None:
        super().__init__()
        self.pool_counts_padding = pool_counts_padding
        self.max_pools = max_pools
        self.one_1x1 = ConvBN(in_channels, 320, 1)
        self.split_1x1 = ConvBN(in_channels, 384, 1)
        self.split_1x3 = ConvBN(384, 384, (1, 3), padding=(0, 1))
        self.split_3x1 = ConvBN(384, 384, (3, 1), padding=(1, 0))
        self.deep_1x1 = ConvBN(in_channels, 448, 1)
        self.deep_3x3 = ConvBN(448, 384, 3, padding=1)
        self.deep_1x3 = ConvBN(384, 384, (1, 3), padding=(0, 1))
        self.deep_3x1 = ConvBN(384, 384, (3, 1), padding=(1, 0))
        self.pool_1x1 = ConvBN(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        split = self.split_1x1(x)
        split_left = self.split_1x3(split)
        split_right = self.split_3x1(split)
        deep = self.deep_3x3(self.deep_1x1(x))
        deep_left = self.deep_1x3(deep)
        deep_right = self.deep_3x1(deep)
        if self.max_pools:
            pool = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pool = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=self.pool_counts_padding)
        return torch.cat([one, split_left, split_right, deep_left, deep_right, self.pool_1x1(pool)], 1)


class InceptionV3(nn.Module):
    """As released by the paper's authors: average pools leave the padding out of the mean."""

    pool_counts_padding = False
    last_module_max_pools = False

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, 32, 3, stride=2)
        self.conv2 = ConvBN(32, 32, 3)
        self.conv3 = ConvBN(32, 64, 3, padding=1)
        self.conv4 = ConvBN(64, 80, 1)
        self.conv5 = ConvBN(80, 192, 3)
        self.mixed_5b = Module5(192, 32, self.pool_counts_padding)
        self.mixed_5c = Module5(256, 64, self.pool_counts_padding)
        self.mixed_5d = Module5(288, 64, self.pool_counts_padding)
        self.mixed_6a = Module6a()
        self.mixed_6b = Module6(128, self.pool_counts_padding)
        self.mixed_6c = Module6(160, self.pool_counts_padding)
        self.mixed_6d = Module6(160, self.pool_counts_padding)
        self.mixed_6e = Module6(192, self.pool_counts_padding)
        self.mixed_7a = Module7a()
        self.mixed_7b = Module7(1280, self.pool_counts_padding, max_pools=False)
        self.mixed_7c = Module7(2048, self.pool_counts_padding, max_pools=self.last_module_max_pools)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.conv5(self.conv4(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.mixed_5d(self.mixed_5c(self.mixed_5b(x)))
        x = self.mixed_6a(x)
        x = self.mixed_6e(self.mixed_6d(self.mixed_6c(self.mixed_6b(x))))
        x = self.mixed_7a(x)
        x = self.mixed_7c(self.mixed_7b(x))
        return self.linear(self.dropout(global_average(x)))


class InceptionV3Torchvision(InceptionV3):
    """As torchvision builds it: average pools divide by nine everywhere."""

    pool_counts_padding = True


class InceptionV3FID(InceptionV3):
    """The 2015-12-05 graph: the last module pools by maximum; 1008 classes."""

    last_module_max_pools = True

    def __init__(self, num_classes: int = 1008) -> None:
        super().__init__(num_classes)
