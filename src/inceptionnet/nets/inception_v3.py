"""Inception-v3. [v3] Szegedy et al., Rethinking the Inception architecture, arXiv:1512.00567.

The paper leaves the filter counts to a supplement that was never published; these are the released network's, whose
stem also differs from the drawn table 1. The table there is not buildable as printed, so there is no second reading.
Two copies of this network are at large that differ only in how they pool, and one that predates it:

- `inception_v3.torchvision`: average pools count the padding, as torchvision's and timm's weights expect.
- `inception_v3.fid`: the graph of 2015-12-05 that the Fréchet inception distance is defined on.
- `inception_v2.rethinking`: the 42-layer Inception-v2 of the same paper, with an unfactorised first convolution.
"""

from __future__ import annotations

from dataclasses import replace

from inceptionnet.nets.heads import aux_head, head
from inceptionnet.nets.spec import (
    AvgPool,
    Branches,
    Conv,
    Conventions,
    MaxPool,
    Network,
    V,
)
from inceptionnet.nets.variants import variant


def inception_a(pool_to: int) -> Branches:
    """[v3] figure 5 with one 5×5 kept, as released: 35×35."""
    return Branches(
        b1x1=[Conv(64)],
        b5x5=[Conv(48), Conv(64, 5)],
        b3x3dbl=[Conv(64), Conv(96, 3), Conv(96, 3)],
        pool=[AvgPool(3), Conv(pool_to)],
    )


def reduction_a() -> Branches:
    """[v3] figure 10: 35×35×288 → 17×17×768."""
    return Branches(
        b3x3=[Conv(384, 3, 2, V)],
        b3x3dbl=[Conv(64), Conv(96, 3), Conv(96, 3, 2, V)],
        pool=[MaxPool(3, 2, V)],
    )


def inception_b(c: int) -> Branches:
    """[v3] figure 6, n = 7: 17×17×768 → 17×17×768."""
    return Branches(
        b1x1=[Conv(192)],
        b7x7=[Conv(c), Conv(c, (1, 7)), Conv(192, (7, 1))],
        b7x7dbl=[Conv(c), Conv(c, (7, 1)), Conv(c, (1, 7)), Conv(c, (7, 1)), Conv(192, (1, 7))],
        pool=[AvgPool(3), Conv(192)],
    )


def reduction_b() -> Branches:
    """17×17×768 → 8×8×1280, as released; the paper has no figure of it."""
    return Branches(
        b3x3=[Conv(192), Conv(320, 3, 2, V)],
        b7x7x3=[Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2, V)],
        pool=[MaxPool(3, 2, V)],
    )


def inception_c(pool: AvgPool | MaxPool) -> Branches:
    """[v3] figure 7: 8×8 → 8×8×2048, widening at the end of two branches instead of deepening."""
    return Branches(
        b1x1=[Conv(320)],
        b3x3=[Conv(384), split(384)],
        b3x3dbl=[Conv(448), Conv(384, 3), split(384)],
        pool=[pool, Conv(192)],
    )


def split(filters: int) -> Branches:
    """A 3×3 opened into 1×3 and 3×1 side by side."""
    return Branches(b1x3=[Conv(filters, (1, 3))], b3x1=[Conv(filters, (3, 1))])


V3 = Network(
    name="inception_v3",
    summary="Inception-v3; average pools leave their padding out, as the TensorFlow weights were trained",
    paper="[v3] section 6, released filter counts",
    input_size=299,
    conventions=Conventions(
        same="tensorflow",
        average_counts_padding=False,
        batch_norm_eps=1e-3,
        conv_init=0.1,
        linear_init=0.01,
    ),
    body={
        "conv_1a": Conv(32, 3, 2, V),
        "conv_2a": Conv(32, 3, 1, V),
        "conv_2b": Conv(64, 3),
        "pool_3a": MaxPool(3, 2, V),
        "conv_3b": Conv(80, 1, 1, V),
        "conv_4a": Conv(192, 3, 1, V),
        "pool_5a": MaxPool(3, 2, V),
        "mixed_5b": inception_a(32),
        "mixed_5c": inception_a(64),
        "mixed_5d": inception_a(64),
        "mixed_6a": reduction_a(),
        "mixed_6b": inception_b(128),
        "mixed_6c": inception_b(160),
        "mixed_6d": inception_b(160),
        "mixed_6e": inception_b(192),
        "mixed_7a": reduction_b(),
        "mixed_7b": inception_c(AvgPool(3)),
        "mixed_7c": inception_c(AvgPool(3)),
    },
    head=head(dropout=0.2),
    aux={"mixed_6e": aux_head(conv_std=0.01, logits_std=0.001)},
    # [v3] section 9: the same cost at less resolution.
    low_resolution={
        151: {"conv_1a": Conv(32, 3, 1, V)},
        79: {"conv_1a": Conv(32, 3, 1, V), "pool_3a": None},
    },
)

TORCHVISION = variant(
    V3,
    name="inception_v3.torchvision",
    summary="the same network; average pools count their padding, as torchvision's and timm's weights expect",
    paper="torchvision's port of [v3]",
    conventions=replace(V3.conventions, average_counts_padding=True),
)

FID = variant(
    V3,
    name="inception_v3.fid",
    summary="the 2015-12-05 graph of the Fréchet inception distance: 1008 classes, last module pools by maximum",
    paper="released graph of [v3], classify_image, 2015-12-05",
    body={"mixed_7c": inception_c(MaxPool(3))},
    head=head(dropout=0.0, classes=1008),
    aux={},
)

RETHINKING = variant(
    V3,
    name="inception_v2.rethinking",
    summary="the Rethinking paper's Inception-v2: first convolution 7×7, auxiliary head without batch norm",
    paper="[v3] sections 6 and 10, table 3",
    # 7×7/2 covers what v3's three 3×3 do and gives the same 147×147×64.
    body={"conv_1a": Conv(64, 7, 2, V), "conv_2a": None, "conv_2b": None},
    aux={"mixed_6e": aux_head(norm=False, conv_std=0.01, logits_std=0.001)},
    low_resolution={
        151: {"conv_1a": Conv(64, 7, 1, V)},
        79: {"conv_1a": Conv(64, 7, 1, V), "pool_3a": None},
    },
)

NETWORKS = (V3, TORCHVISION, FID, RETHINKING)
