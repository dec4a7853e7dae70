"""Inception-v1 (GoogLeNet). [v1] Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, table 1 and figure 3.

`inception_v1` is the paper's: 5×5 branches, biases, local response norm, two auxiliary heads. The released TensorFlow
network (`.slim`) has batch norm instead of biases and response norm, 3×3 where the paper has 5×5, and a 2×2 last
pool; torchvision's (`.torchvision`) is that one again with its own padding and two auxiliary heads.
"""

from __future__ import annotations

from dataclasses import replace

from inceptionnet.nets.heads import head
from inceptionnet.nets.spec import (
    CEIL,
    AdaptiveAvgPool,
    AvgPool,
    Branches,
    Conv,
    Conventions,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    Node,
    V,
)
from inceptionnet.nets.variants import variant

LRN = LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=1.0)  # [v1] names it only; the figures are its Caffe release's


def inception(b1x1: int, b3x3: tuple[int, int], b5x5: tuple[int, int], pool: int, *, large: int = 5) -> Branches:
    """[v1] figure 2b. `large` is the kernel of the "5×5" branch: 5 in the paper, 3 in the releases."""
    return Branches(
        b1x1=[Conv(b1x1)],
        b3x3=[Conv(b3x3[0]), Conv(b3x3[1], 3)],
        b5x5=[Conv(b5x5[0]), Conv(b5x5[1], large)],
        pool=[MaxPool(3), Conv(pool)],
    )


def modules(large: int) -> dict[str, Node]:
    """The nine modules of [v1] table 1, without the pools between them."""
    return {
        "inception_3a": inception(64, (96, 128), (16, 32), 32, large=large),
        "inception_3b": inception(128, (128, 192), (32, 96), 64, large=large),
        "pool_3": MaxPool(3, 2),
        "inception_4a": inception(192, (96, 208), (16, 48), 64, large=large),
        "inception_4b": inception(160, (112, 224), (24, 64), 64, large=large),
        "inception_4c": inception(128, (128, 256), (24, 64), 64, large=large),
        "inception_4d": inception(112, (144, 288), (32, 64), 64, large=large),
        "inception_4e": inception(256, (160, 320), (32, 128), 128, large=large),
        "pool_4": MaxPool(3, 2),
        "inception_5a": inception(256, (160, 320), (32, 128), 128, large=large),
        "inception_5b": inception(384, (192, 384), (48, 128), 128, large=large),
    }


def aux_head() -> dict[str, Node]:
    """[v1] section 5. The grid is 4×4 at 224 px, and brought to that at other sizes since `hidden` takes it whole."""
    return {
        "pool": AvgPool(5, 3, V),
        "conv": Conv(128),
        "grid": AdaptiveAvgPool(4),
        "hidden": Linear(1024, relu=True),
        "dropout": Dropout(0.7),
        "logits": Linear(1000),
    }


def torchvision_aux_head() -> dict[str, Node]:
    """An adaptive pool to 4×4, whose windows differ from those of the paper's 5×5 pool of stride 3."""
    return {
        "pool": AdaptiveAvgPool(4),
        "conv": Conv(128),
        "hidden": Linear(1024, relu=True),
        "dropout": Dropout(0.7),
        "logits": Linear(1000),
    }


PAPER = Network(
    name="inception_v1",
    summary="GoogLeNet as in the paper: 5×5 branches, biases, LRN, two auxiliary heads",
    paper="[v1] table 1, figure 3",
    input_size=224,
    # [v1] draws only the sizes of the grids; "same" is read as its authors' framework computes it.
    conventions=Conventions(
        same="tensorflow",
        average_counts_padding=False,
        batch_norm_eps=None,
        conv_init="variance scaling",  # [v1] says nothing of it; without batch norm it decides whether v1 trains
        linear_init="variance scaling",
    ),
    body={
        "conv_1": Conv(64, 7, 2),
        "pool_1": MaxPool(3, 2),
        "norm_1": LRN,
        "conv_2_reduce": Conv(64),
        "conv_2": Conv(192, 3),
        "norm_2": LRN,
        "pool_2": MaxPool(3, 2),
        **modules(large=5),
    },
    head=head(dropout=0.4),
    aux={"inception_4a": aux_head(), "inception_4d": aux_head()},
)

SLIM = variant(
    PAPER,
    name="inception_v1.slim",
    summary="released for TensorFlow: batch norm, 3×3 for 5×5, no LRN, no auxiliary head",
    paper="TF-slim release of [v1]",
    conventions=replace(PAPER.conventions, batch_norm_eps=1e-3, conv_init=0.01),
    body={"norm_1": None, "norm_2": None, **modules(large=3), "pool_4": MaxPool(2, 2)},
    head=head(dropout=0.2),
    aux={},
)

TORCHVISION = variant(
    SLIM,
    name="inception_v1.torchvision",
    summary="torchvision's googlenet: as slim, own padding, two auxiliary heads",
    paper="torchvision's port of the TF-slim release of [v1]",
    conventions=replace(SLIM.conventions, same="symmetric", average_counts_padding=True),
    body={
        "pool_1": MaxPool(3, 2, CEIL),
        "pool_2": MaxPool(3, 2, CEIL),
        "pool_3": MaxPool(3, 2, CEIL),
        "pool_4": MaxPool(2, 2, CEIL),
    },
    aux={"inception_4a": torchvision_aux_head(), "inception_4d": torchvision_aux_head()},
)

NETWORKS = (PAPER, SLIM, TORCHVISION)
