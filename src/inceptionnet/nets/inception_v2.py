"""Inception-v2 (BN-Inception). [v2] Ioffe and Szegedy, Batch normalization, arXiv:1502.03167, figure 5.

`inception_v2` is the paper's table with an ordinary 7×7 first convolution. The released TensorFlow network (`.slim`)
makes that convolution separable, as the paper's text says it was trained, and drops out 20 % before the logits; the
published checkpoint has a bias and no batch norm on that one convolution, so that is what it has here. The network
released for Caffe (`.caffe`), whose weights Cadene's PyTorch port has, is wider in two modules.

The other Inception-v2, of the Rethinking paper, is in inception_v3.py.
"""

from __future__ import annotations

from dataclasses import replace

from inceptionnet.nets.heads import head
from inceptionnet.nets.spec import (
    AFTER,
    CEIL,
    AvgPool,
    Branches,
    Conv,
    Conventions,
    MaxPool,
    Network,
    Padding,
    SeparableConv,
)
from inceptionnet.nets.variants import variant


def reduce(filters: int) -> Conv:
    """A 1×1 convolution that narrows the input of a larger one; its own initial deviation is the release's."""
    return Conv(filters, std=0.09)


def inception(b1x1: int, b3x3: tuple[int, int], b3x3dbl: tuple[int, int], pool: AvgPool | MaxPool, to: int) -> Branches:
    """[v2] figure 5, a row with stride 1: two 3×3 stand for [v1]'s 5×5."""
    return Branches(
        b1x1=[Conv(b1x1)],
        b3x3=[reduce(b3x3[0]), Conv(b3x3[1], 3)],
        b3x3dbl=[reduce(b3x3dbl[0]), Conv(b3x3dbl[1], 3), Conv(b3x3dbl[1], 3)],
        pool=[pool, Conv(to, std=0.1)],
    )


def reduction(b3x3: tuple[int, int], b3x3dbl: tuple[int, int], padding: Padding = "same") -> Branches:
    """[v2] figure 5, a row with stride 2: no 1×1 branch, and the pool, of that padding, passes through."""
    return Branches(
        b3x3=[reduce(b3x3[0]), Conv(b3x3[1], 3, 2)],
        b3x3dbl=[reduce(b3x3dbl[0]), Conv(b3x3dbl[1], 3), Conv(b3x3dbl[1], 3, 2)],
        pool=[MaxPool(3, 2, padding)],
    )


PAPER = Network(
    name="inception_v2",
    summary="BN-Inception as in the paper",
    paper="[v2] figure 5",
    input_size=224,
    conventions=Conventions(
        same="tensorflow",
        average_counts_padding=False,
        batch_norm_eps=1e-3,
        conv_init="variance scaling",
        linear_init="variance scaling",
    ),
    body={
        "conv_1": Conv(64, 7, 2),
        "pool_1": MaxPool(3, 2),
        "conv_2_reduce": Conv(64, std=0.1),
        "conv_2": Conv(192, 3),
        "pool_2": MaxPool(3, 2),
        "inception_3a": inception(64, (64, 64), (64, 96), AvgPool(3), 32),
        "inception_3b": inception(64, (64, 96), (64, 96), AvgPool(3), 64),
        "inception_3c": reduction((128, 160), (64, 96)),
        "inception_4a": inception(224, (64, 96), (96, 128), AvgPool(3), 128),
        "inception_4b": inception(192, (96, 128), (96, 128), AvgPool(3), 128),
        "inception_4c": inception(160, (128, 160), (128, 160), AvgPool(3), 96),
        "inception_4d": inception(96, (128, 192), (160, 192), AvgPool(3), 96),
        "inception_4e": reduction((128, 192), (192, 256)),
        "inception_5a": inception(352, (192, 320), (160, 224), AvgPool(3), 128),
        "inception_5b": inception(352, (192, 320), (192, 224), MaxPool(3), 128),
    },
    head=head(dropout=0.0),
)

SLIM = variant(
    PAPER,
    name="inception_v2.slim",
    summary="released for TensorFlow: separable first convolution",
    paper="TF-slim release of [v2]",
    body={"conv_1": SeparableConv(64, 7, 2, multiplier=8, norm=False, std=1.0)},
    head=head(dropout=0.2),
)

CAFFE = variant(
    PAPER,
    name="inception_v2.caffe",
    summary="released for Caffe: 4c and 4d pool to 128, own padding; Cadene's bninception",
    paper="Caffe release of [v2]",
    # There each convolution has a bias before its batch norm; it is folded into the mean when weights are read.
    conventions=replace(PAPER.conventions, same="symmetric", average_counts_padding=True, batch_norm_eps=1e-5),
    body={
        "pool_1": MaxPool(3, 2, CEIL),
        "pool_2": MaxPool(3, 2, CEIL),
        # The release's pools are of ceil too; on the even grids that it works on at all this is the same.
        "inception_3c": reduction((128, 160), (64, 96), AFTER),
        "inception_4c": inception(160, (128, 160), (128, 160), AvgPool(3), 128),
        "inception_4d": inception(96, (128, 192), (160, 192), AvgPool(3), 128),
        "inception_4e": reduction((128, 192), (192, 256), AFTER),
    },
)

NETWORKS = (PAPER, SLIM, CAFFE)
