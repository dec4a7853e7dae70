"""Inception-v4, arXiv:1602.07261, figures 3 to 9: as drawn there, and as released.

The drawing's modules start with their pooling branch; the released network's modules end with it. The released network
also has the other order in the stem's 7×1/1×7 pair, in B's fourth branch and in C's 1×3/3×1 pair.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ConvBN, average_pool_3x3, global_average


class Stem(nn.Module):
    """Figure 3: 299×299×3 → 35×35×384."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, 32, 3, stride=2)
        self.conv2 = ConvBN(32, 32, 3)
        self.conv3 = ConvBN(32, 64, 3, padding=1)
        self.down1 = ConvBN(64, 96, 3, stride=2)
        self.left_a = ConvBN(160, 64, 1)
        self.left_b = ConvBN(64, 96, 3)
        self.right_a = ConvBN(160, 64, 1)
        self.right_b = ConvBN(64, 64, (7, 1), padding=(3, 0))
        self.right_c = ConvBN(64, 64, (1, 7), padding=(0, 3))
        self.right_d = ConvBN(64, 96, 3)
        self.down2 = ConvBN(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        x = torch.cat([F.max_pool2d(x, 3, stride=2), self.down1(x)], 1)
        left = self.left_b(self.left_a(x))
        right = self.right_d(self.right_c(self.right_b(self.right_a(x))))
        x = torch.cat([left, right], 1)
        return torch.cat([self.down2(x), F.max_pool2d(x, 3, stride=2)], 1)


class InceptionA(nn.Module):
    """Figure 4: 384 → 384."""

    def __init__(self) -> None:
        super().__init__()
        self.pool_1x1 = ConvBN(384, 96, 1)
        self.one_1x1 = ConvBN(384, 96, 1)
        self.three_1x1 = ConvBN(384, 64, 1)
        self.three_3x3 = ConvBN(64, 96, 3, padding=1)
        self.double_1x1 = ConvBN(384, 64, 1)
        self.double_3x3_a = ConvBN(64, 96, 3, padding=1)
        self.double_3x3_b = ConvBN(96, 96, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pool = self.pool_1x1(average_pool_3x3(x))
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([pool, one, three, double], 1)


class ReductionA(nn.Module):
    """Figure 7 with k, l, m, n = 192, 224, 256, 384: 384 → 1024."""

    def __init__(self) -> None:
        super().__init__()
        self.three = ConvBN(384, 384, 3, stride=2)
        self.double_1x1 = ConvBN(384, 192, 1)
        self.double_3x3_a = ConvBN(192, 224, 3, padding=1)
        self.double_3x3_b = ConvBN(224, 256, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d(x, 3, stride=2)
        three = self.three(x)
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([pool, three, double], 1)


class InceptionB(nn.Module):
    """Figure 5: 1024 → 1024. The third branch's last convolution is 7×1; the drawing prints 1×7 twice."""

    def __init__(self) -> None:
        super().__init__()
        self.pool_1x1 = ConvBN(1024, 128, 1)
        self.one_1x1 = ConvBN(1024, 384, 1)
        self.seven_1x1 = ConvBN(1024, 192, 1)
        self.seven_1x7 = ConvBN(192, 224, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(224, 256, (7, 1), padding=(3, 0))
        self.double_1x1 = ConvBN(1024, 192, 1)
        self.double_1x7_a = ConvBN(192, 192, (1, 7), padding=(0, 3))
        self.double_7x1_a = ConvBN(192, 224, (7, 1), padding=(3, 0))
        self.double_1x7_b = ConvBN(224, 224, (1, 7), padding=(0, 3))
        self.double_7x1_b = ConvBN(224, 256, (7, 1), padding=(3, 0))

    def forward(self, x: Tensor) -> Tensor:
        pool = self.pool_1x1(average_pool_3x3(x))
        one = self.one_1x1(x)
        seven = self.seven_7x1(self.seven_1x7(self.seven_1x1(x)))
        double = self.double_7x1_a(self.double_1x7_a(self.double_1x1(x)))
        double = self.double_7x1_b(self.double_1x7_b(double))
        return torch.cat([pool, one, seven, double], 1)


class ReductionB(nn.Module):
    """Figure 8: 1024 → 1536."""

    def __init__(self) -> None:
        super().__init__()
        self.three_1x1 = ConvBN(1024, 192, 1)
        self.three_3x3 = ConvBN(192, 192, 3, stride=2)
        self.seven_1x1 = ConvBN(1024, 256, 1)
        self.seven_1x7 = ConvBN(256, 256, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(256, 320, (7, 1), padding=(3, 0))
        self.seven_3x3 = ConvBN(320, 320, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d(x, 3, stride=2)
        three = self.three_3x3(self.three_1x1(x))
        seven = self.seven_3x3(self.seven_7x1(self.seven_1x7(self.seven_1x1(x))))
        return torch.cat([pool, three, seven], 1)


class InceptionC(nn.Module):
    """Figure 6: 1536 → 1536."""

    def __init__(self) -> None:
        super().__init__()
        self.pool_1x1 = ConvBN(1536, 256, 1)
        self.one_1x1 = ConvBN(1536, 256, 1)
        self.split_1x1 = ConvBN(1536, 384, 1)
        self.split_1x3 = ConvBN(384, 256, (1, 3), padding=(0, 1))
        self.split_3x1 = ConvBN(384, 256, (3, 1), padding=(1, 0))
        self.deep_1x1 = ConvBN(1536, 384, 1)
        self.deep_1x3 = ConvBN(384, 448, (1, 3), padding=(0, 1))
        self.deep_3x1 = ConvBN(448, 512, (3, 1), padding=(1, 0))
        self.deep_split_3x1 = ConvBN(512, 256, (3, 1), padding=(1, 0))
        self.deep_split_1x3 = ConvBN(512, 256, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        pool = self.pool_1x1(average_pool_3x3(x))
        one = self.one_1x1(x)
        split = self.split_1x1(x)
        split_left = self.split_1x3(split)
        split_right = self.split_3x1(split)
        deep = self.deep_3x1(self.deep_1x3(self.deep_1x1(x)))
        deep_left = self.deep_split_3x1(deep)
        deep_right = self.deep_split_1x3(deep)
        return torch.cat([pool, one, split_left, split_right, deep_left, deep_right], 1)


class InceptionV4(nn.Module):
    """As drawn, figure 9."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = Stem()
        self.a = nn.Sequential(InceptionA(), InceptionA(), InceptionA(), InceptionA())
        self.reduction_a = ReductionA()
        self.b = nn.Sequential(
            InceptionB(), InceptionB(), InceptionB(), InceptionB(), InceptionB(), InceptionB(), InceptionB()
        )
        self.reduction_b = ReductionB()
        self.c = nn.Sequential(InceptionC(), InceptionC(), InceptionC())
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(1536, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        x = self.b(self.reduction_a(x))
        x = self.c(self.reduction_b(x))
        return self.linear(self.dropout(global_average(x)))


class StemSlim(nn.Module):
    """Released stem: the second branch goes 1×7 first, then 7×1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, 32, 3, stride=2)
        self.conv2 = ConvBN(32, 32, 3)
        self.conv3 = ConvBN(32, 64, 3, padding=1)
        self.down1 = ConvBN(64, 96, 3, stride=2)
        self.left_a = ConvBN(160, 64, 1)
        self.left_b = ConvBN(64, 96, 3)
        self.right_a = ConvBN(160, 64, 1)
        self.right_b = ConvBN(64, 64, (1, 7), padding=(0, 3))
        self.right_c = ConvBN(64, 64, (7, 1), padding=(3, 0))
        self.right_d = ConvBN(64, 96, 3)
        self.down2 = ConvBN(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        x = torch.cat([F.max_pool2d(x, 3, stride=2), self.down1(x)], 1)
        left = self.left_b(self.left_a(x))
        right = self.right_d(self.right_c(self.right_b(self.right_a(x))))
        x = torch.cat([left, right], 1)
        return torch.cat([self.down2(x), F.max_pool2d(x, 3, stride=2)], 1)


class InceptionASlim(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(384, 96, 1)
        self.three_1x1 = ConvBN(384, 64, 1)
        self.three_3x3 = ConvBN(64, 96, 3, padding=1)
        self.double_1x1 = ConvBN(384, 64, 1)
        self.double_3x3_a = ConvBN(64, 96, 3, padding=1)
        self.double_3x3_b = ConvBN(96, 96, 3, padding=1)
        self.pool_1x1 = ConvBN(384, 96, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = self.pool_1x1(average_pool_3x3(x))
        return torch.cat([one, three, double, pool], 1)


class ReductionASlim(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.three = ConvBN(384, 384, 3, stride=2)
        self.double_1x1 = ConvBN(384, 192, 1)
        self.double_3x3_a = ConvBN(192, 224, 3, padding=1)
        self.double_3x3_b = ConvBN(224, 256, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(x)
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = F.max_pool2d(x, 3, stride=2)
        return torch.cat([three, double, pool], 1)


class InceptionBSlim(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(1024, 384, 1)
        self.seven_1x1 = ConvBN(1024, 192, 1)
        self.seven_1x7 = ConvBN(192, 224, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(224, 256, (7, 1), padding=(3, 0))
        self.double_1x1 = ConvBN(1024, 192, 1)
        self.double_7x1_a = ConvBN(192, 192, (7, 1), padding=(3, 0))
        self.double_1x7_a = ConvBN(192, 224, (1, 7), padding=(0, 3))
        self.double_7x1_b = ConvBN(224, 224, (7, 1), padding=(3, 0))
        self.double_1x7_b = ConvBN(224, 256, (1, 7), padding=(0, 3))
        self.pool_1x1 = ConvBN(1024, 128, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        seven = self.seven_7x1(self.seven_1x7(self.seven_1x1(x)))
        double = self.double_1x7_a(self.double_7x1_a(self.double_1x1(x)))
        double = self.double_1x7_b(self.double_7x1_b(double))
        pool = self.pool_1x1(average_pool_3x3(x))
        return torch.cat([one, seven, double, pool], 1)


class ReductionBSlim(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.three_1x1 = ConvBN(1024, 192, 1)
        self.three_3x3 = ConvBN(192, 192, 3, stride=2)
        self.seven_1x1 = ConvBN(1024, 256, 1)
        self.seven_1x7 = ConvBN(256, 256, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(256, 320, (7, 1), padding=(3, 0))
        self.seven_3x3 = ConvBN(320, 320, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three_3x3(self.three_1x1(x))
        seven = self.seven_3x3(self.seven_7x1(self.seven_1x7(self.seven_1x1(x))))
        pool = F.max_pool2d(x, 3, stride=2)
        return torch.cat([three, seven, pool], 1)


class InceptionCSlim(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(1536, 256, 1)
        self.split_1x1 = ConvBN(1536, 384, 1)
        self.split_1x3 = ConvBN(384, 256, (1, 3), padding=(0, 1))
        self.split_3x1 = ConvBN(384, 256, (3, 1), padding=(1, 0))
        self.deep_1x1 = ConvBN(1536, 384, 1)
        self.deep_3x1 = ConvBN(384, 448, (3, 1), padding=(1, 0))
        self.deep_1x3 = ConvBN(448, 512, (1, 3), padding=(0, 1))
        self.deep_split_1x3 = ConvBN(512, 256, (1, 3), padding=(0, 1))
        self.deep_split_3x1 = ConvBN(512, 256, (3, 1), padding=(1, 0))
        self.pool_1x1 = ConvBN(1536, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        split = self.split_1x1(x)
        split_left = self.split_1x3(split)
        split_right = self.split_3x1(split)
        deep = self.deep_1x3(self.deep_3x1(self.deep_1x1(x)))
        deep_left = self.deep_split_1x3(deep)
        deep_right = self.deep_split_3x1(deep)
        pool = self.pool_1x1(average_pool_3x3(x))
        return torch.cat([one, split_left, split_right, deep_left, deep_right, pool], 1)


class InceptionV4Slim(nn.Module):
    """As released."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = StemSlim()
        self.a = nn.Sequential(InceptionASlim(), InceptionASlim(), InceptionASlim(), InceptionASlim())
        self.reduction_a = ReductionASlim()
        self.b = nn.Sequential(
            InceptionBSlim(),
            InceptionBSlim(),
            InceptionBSlim(),
            InceptionBSlim(),
            InceptionBSlim(),
            InceptionBSlim(),
            InceptionBSlim(),
        )
        self.reduction_b = ReductionBSlim()
        self.c = nn.Sequential(InceptionCSlim(), InceptionCSlim(), InceptionCSlim())
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(1536, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        x = self.b(self.reduction_a(x))
        x = self.c(self.reduction_b(x))
        return self.linear(self.dropout(global_average(x)))
