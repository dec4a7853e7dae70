"""Inception-ResNet-v1 and -v2, arXiv:1602.07261, figures 10 to 19: as drawn, and as released.

Residuals are scaled by 0.17 (A), 0.10 (B) and 0.20 (C) before the sum. The 1×1 convolution that closes a block is
linear: a bias, no batch norm, no ReLU. The released networks end their C blocks with one that is neither scaled nor
followed by a ReLU, and put the pooling branch of a reduction last; the drawings put it first.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import BN_EPS, ConvBN, average_pool_3x3, global_average
from .inception_v4 import Stem as StemV4

SCALE_A, SCALE_B, SCALE_C = 0.17, 0.10, 0.20


class StemV1(nn.Module):
    """Figure 14: 299×299×3 → 35×35×256."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, 32, 3, stride=2)
        self.conv2 = ConvBN(32, 32, 3)
        self.conv3 = ConvBN(32, 64, 3, padding=1)
        self.conv4 = ConvBN(64, 80, 1)
        self.conv5 = ConvBN(80, 192, 3)
        self.conv6 = ConvBN(192, 256, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2)
        return self.conv6(self.conv5(self.conv4(x)))


class BlockAV1(nn.Module):
    """Figure 10, on 256 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(256, 32, 1)
        self.three_1x1 = ConvBN(256, 32, 1)
        self.three_3x3 = ConvBN(32, 32, 3, padding=1)
        self.double_1x1 = ConvBN(256, 32, 1)
        self.double_3x3_a = ConvBN(32, 32, 3, padding=1)
        self.double_3x3_b = ConvBN(32, 32, 3, padding=1)
        self.closing = nn.Conv2d(96, 256, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        residual = self.closing(torch.cat([one, three, double], 1))
        return F.relu(x + SCALE_A * residual)


class BlockBV1(nn.Module):
    """Figure 11, on 896 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(896, 128, 1)
        self.seven_1x1 = ConvBN(896, 128, 1)
        self.seven_1x7 = ConvBN(128, 128, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(128, 128, (7, 1), padding=(3, 0))
        self.closing = nn.Conv2d(256, 896, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        seven = self.seven_7x1(self.seven_1x7(self.seven_1x1(x)))
        residual = self.closing(torch.cat([one, seven], 1))
        return F.relu(x + SCALE_B * residual)


class ResidualCV1(nn.Module):
    """Figure 13 up to its linear convolution, on 1792 channels; the sum is the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(1792, 192, 1)
        self.three_1x1 = ConvBN(1792, 192, 1)
        self.three_1x3 = ConvBN(192, 192, (1, 3), padding=(0, 1))
        self.three_3x1 = ConvBN(192, 192, (3, 1), padding=(1, 0))
        self.closing = nn.Conv2d(384, 1792, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x1(self.three_1x3(self.three_1x1(x)))
        return self.closing(torch.cat([one, three], 1))


class BlockCV1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.residual = ResidualCV1()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + SCALE_C * self.residual(x))


class LastBlockCV1(nn.Module):
    """The released sixth C block: the whole residual, and no ReLU after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.residual = ResidualCV1()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class ReductionAV1(nn.Module):
    """Figure 7 with k, l, m, n = 192, 192, 256, 384: 256 → 896."""

    def __init__(self) -> None:
        super().__init__()
        self.three = ConvBN(256, 384, 3, stride=2)
        self.double_1x1 = ConvBN(256, 192, 1)
        self.double_3x3_a = ConvBN(192, 192, 3, padding=1)
        self.double_3x3_b = ConvBN(192, 256, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d(x, 3, stride=2)
        three = self.three(x)
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([pool, three, double], 1)


class ReductionBV1(nn.Module):
    """Figure 12: 896 → 1792."""

    def __init__(self) -> None:
        super().__init__()
        self.first_1x1 = ConvBN(896, 256, 1)
        self.first_3x3 = ConvBN(256, 384, 3, stride=2)
        self.second_1x1 = ConvBN(896, 256, 1)
        self.second_3x3 = ConvBN(256, 256, 3, stride=2)
        self.double_1x1 = ConvBN(896, 256, 1)
        self.double_3x3_a = ConvBN(256, 256, 3, padding=1)
        self.double_3x3_b = ConvBN(256, 256, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d(x, 3, stride=2)
        first = self.first_3x3(self.first_1x1(x))
        second = self.second_3x3(self.second_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([pool, first, second, double], 1)


class InceptionResNetV1(nn.Module):
    """As drawn, figure 15: 5, 10 and 5 blocks."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = StemV1()
        self.a = nn.Sequential(*[BlockAV1() for _ in range(5)])
        self.reduction_a = ReductionAV1()
        self.b = nn.Sequential(*[BlockBV1() for _ in range(10)])
        self.reduction_b = ReductionBV1()
        self.c = nn.Sequential(*[BlockCV1() for _ in range(5)])
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(1792, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        x = self.b(self.reduction_a(x))
        x = self.c(self.reduction_b(x))
        return self.linear(self.dropout(global_average(x)))


class ReductionAFaceNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.three = ConvBN(256, 384, 3, stride=2)
        self.double_1x1 = ConvBN(256, 192, 1)
        self.double_3x3_a = ConvBN(192, 192, 3, padding=1)
        self.double_3x3_b = ConvBN(192, 256, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(x)
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = F.max_pool2d(x, 3, stride=2)
        return torch.cat([three, double, pool], 1)


class ReductionBFaceNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first_1x1 = ConvBN(896, 256, 1)
        self.first_3x3 = ConvBN(256, 384, 3, stride=2)
        self.second_1x1 = ConvBN(896, 256, 1)
        self.second_3x3 = ConvBN(256, 256, 3, stride=2)
        self.double_1x1 = ConvBN(896, 256, 1)
        self.double_3x3_a = ConvBN(256, 256, 3, padding=1)
        self.double_3x3_b = ConvBN(256, 256, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first_3x3(self.first_1x1(x))
        second = self.second_3x3(self.second_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = F.max_pool2d(x, 3, stride=2)
        return torch.cat([first, second, double, pool], 1)


class FaceNet(nn.Module):
    """Inception-ResNet-v1 as released for faces, 160×160: a sixth C block and a 512-d embedding before the logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = StemV1()
        self.a = nn.Sequential(*[BlockAV1() for _ in range(5)])
        self.reduction_a = ReductionAFaceNet()
        self.b = nn.Sequential(*[BlockBV1() for _ in range(10)])
        self.reduction_b = ReductionBFaceNet()
        self.c = nn.Sequential(*[BlockCV1() for _ in range(5)])
        self.last_c = LastBlockCV1()
        self.dropout = nn.Dropout(0.6)
        self.embedding = nn.Linear(1792, 512, bias=False)
        self.embedding_bn = nn.BatchNorm1d(512, eps=BN_EPS)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        x = self.b(self.reduction_a(x))
        x = self.last_c(self.c(self.reduction_b(x)))
        x = self.embedding(self.dropout(global_average(x)))
        return self.linear(self.embedding_bn(x))


class BlockAV2(nn.Module):
    """Figure 16; on 384 channels as drawn, on 320 as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(channels, 32, 1)
        self.three_1x1 = ConvBN(channels, 32, 1)
        self.three_3x3 = ConvBN(32, 32, 3, padding=1)
        self.double_1x1 = ConvBN(channels, 32, 1)
        self.double_3x3_a = ConvBN(32, 48, 3, padding=1)
        self.double_3x3_b = ConvBN(48, 64, 3, padding=1)
        self.closing = nn.Conv2d(128, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x3(self.three_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        residual = self.closing(torch.cat([one, three, double], 1))
        return F.relu(x + SCALE_A * residual)


class BlockBV2(nn.Module):
    """Figure 17; on 1152 channels as drawn (where 1154 is printed), on 1088 as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(channels, 192, 1)
        self.seven_1x1 = ConvBN(channels, 128, 1)
        self.seven_1x7 = ConvBN(128, 160, (1, 7), padding=(0, 3))
        self.seven_7x1 = ConvBN(160, 192, (7, 1), padding=(3, 0))
        self.closing = nn.Conv2d(384, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        seven = self.seven_7x1(self.seven_1x7(self.seven_1x1(x)))
        residual = self.closing(torch.cat([one, seven], 1))
        return F.relu(x + SCALE_B * residual)


class ResidualCV2(nn.Module):
    """Figure 19 up to its linear convolution; on 2144 channels as drawn (2048 is printed), on 2080 as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one_1x1 = ConvBN(channels, 192, 1)
        self.three_1x1 = ConvBN(channels, 192, 1)
        self.three_1x3 = ConvBN(192, 224, (1, 3), padding=(0, 1))
        self.three_3x1 = ConvBN(224, 256, (3, 1), padding=(1, 0))
        self.closing = nn.Conv2d(448, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one_1x1(x)
        three = self.three_3x1(self.three_1x3(self.three_1x1(x)))
        return self.closing(torch.cat([one, three], 1))


class BlockCV2(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = ResidualCV2(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + SCALE_C * self.residual(x))


class LastBlockCV2(nn.Module):
    """The released tenth C block: the whole residual, and no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = ResidualCV2(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class ReductionAV2(nn.Module):
    """Figure 7 with k, l, m, n = 256, 256, 384, 384: 384 → 1152, the pool first."""

    def __init__(self) -> None:
        super().__init__()
        self.three = ConvBN(384, 384, 3, stride=2)
        self.double_1x1 = ConvBN(384, 256, 1)
        self.double_3x3_a = ConvBN(256, 256, 3, padding=1)
        self.double_3x3_b = ConvBN(256, 384, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d(x, 3, stride=2)
        three = self.three(x)
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([pool, three, double], 1)


class ReductionBV2(nn.Module):
    """Figure 18: 1152 → 2144, the pool first."""

    def __init__(self) -> None:
        super().__init__()
        self.first_1x1 = ConvBN(1152, 256, 1)
        self.first_3x3 = ConvBN(256, 384, 3, stride=2)
        self.second_1x1 = ConvBN(1152, 256, 1)
        self.second_3x3 = ConvBN(256, 288, 3, stride=2)
        self.double_1x1 = ConvBN(1152, 256, 1)
        self.double_3x3_a = ConvBN(256, 288, 3, padding=1)
        self.double_3x3_b = ConvBN(288, 320, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d(x, 3, stride=2)
        first = self.first_3x3(self.first_1x1(x))
        second = self.second_3x3(self.second_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        return torch.cat([pool, first, second, double], 1)


class InceptionResNetV2(nn.Module):
    """As drawn: Inception-v4's stem, 5, 10 and 5 blocks."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = StemV4()
        self.a = nn.Sequential(*[BlockAV2(384) for _ in range(5)])
        self.reduction_a = ReductionAV2()
        self.b = nn.Sequential(*[BlockBV2(1152) for _ in range(10)])
        self.reduction_b = ReductionBV2()
        self.c = nn.Sequential(*[BlockCV2(2144) for _ in range(5)])
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(2144, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        x = self.b(self.reduction_a(x))
        x = self.c(self.reduction_b(x))
        return self.linear(self.dropout(global_average(x)))


class StemV2Slim(nn.Module):
    """Inception-v3's stem and one module like its first: 299×299×3 → 35×35×320."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, 32, 3, stride=2)
        self.conv2 = ConvBN(32, 32, 3)
        self.conv3 = ConvBN(32, 64, 3, padding=1)
        self.conv4 = ConvBN(64, 80, 1)
        self.conv5 = ConvBN(80, 192, 3)
        self.one_1x1 = ConvBN(192, 96, 1)
        self.five_1x1 = ConvBN(192, 48, 1)
        self.five_5x5 = ConvBN(48, 64, 5, padding=2)
        self.double_1x1 = ConvBN(192, 64, 1)
        self.double_3x3_a = ConvBN(64, 96, 3, padding=1)
        self.double_3x3_b = ConvBN(96, 96, 3, padding=1)
        self.pool_1x1 = ConvBN(192, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.conv5(self.conv4(x))
        x = F.max_pool2d(x, 3, stride=2)
        one = self.one_1x1(x)
        five = self.five_5x5(self.five_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = self.pool_1x1(average_pool_3x3(x))
        return torch.cat([one, five, double, pool], 1)


class ReductionAV2Slim(nn.Module):
    """320 → 1088, the pool last."""

    def __init__(self) -> None:
        super().__init__()
        self.three = ConvBN(320, 384, 3, stride=2)
        self.double_1x1 = ConvBN(320, 256, 1)
        self.double_3x3_a = ConvBN(256, 256, 3, padding=1)
        self.double_3x3_b = ConvBN(256, 384, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(x)
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = F.max_pool2d(x, 3, stride=2)
        return torch.cat([three, double, pool], 1)


class ReductionBV2Slim(nn.Module):
    """1088 → 2080, the pool last."""

    def __init__(self) -> None:
        super().__init__()
        self.first_1x1 = ConvBN(1088, 256, 1)
        self.first_3x3 = ConvBN(256, 384, 3, stride=2)
        self.second_1x1 = ConvBN(1088, 256, 1)
        self.second_3x3 = ConvBN(256, 288, 3, stride=2)
        self.double_1x1 = ConvBN(1088, 256, 1)
        self.double_3x3_a = ConvBN(256, 288, 3, padding=1)
        self.double_3x3_b = ConvBN(288, 320, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first_3x3(self.first_1x1(x))
        second = self.second_3x3(self.second_1x1(x))
        double = self.double_3x3_b(self.double_3x3_a(self.double_1x1(x)))
        pool = F.max_pool2d(x, 3, stride=2)
        return torch.cat([first, second, double, pool], 1)


class InceptionResNetV2Slim(nn.Module):
    """As released: 10, 20 and 9 + 1 blocks, and 1×1×1536 before the pooling."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = StemV2Slim()
        self.a = nn.Sequential(*[BlockAV2(320) for _ in range(10)])
        self.reduction_a = ReductionAV2Slim()
        self.b = nn.Sequential(*[BlockBV2(1088) for _ in range(20)])
        self.reduction_b = ReductionBV2Slim()
        self.c = nn.Sequential(*[BlockCV2(2080) for _ in range(9)])
        self.last_c = LastBlockCV2(2080)
        self.conv_end = ConvBN(2080, 1536, 1)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(1536, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        x = self.b(self.reduction_a(x))
        x = self.last_c(self.c(self.reduction_b(x)))
        return self.linear(self.dropout(global_average(self.conv_end(x))))
