"""Inception-ResNet-v1 and -v2. [v4] Szegedy et al., Inception-v4, Inception-ResNet and the impact of residual
connections on learning, arXiv:1602.07261, figures 10 to 19.

Both are as drawn, with two rules that settle what the drawings leave open. A block's closing linear 1×1 convolution
has the depth of the block's input, so where figures 17 and 19 print 1154 and 2048 the arithmetic stands: 1152 and 2144.
And batch norm sits on the ordinary convolutions only: the closing one has a bias and the sums have nothing.

The released networks differ: `inception_resnet_v1.facenet` has a last unscaled block and an embedding for faces;
`inception_resnet_v2.slim` has v3's stem, twice the blocks, and a 1×1 convolution before the pool.
"""

from __future__ import annotations

from inceptionnet.nets.heads import aux_head, head
from inceptionnet.nets.inception_v4 import CONVENTIONS, LOW_RESOLUTION, pool_last, reduction_a, stem
from inceptionnet.nets.spec import (
    AdaptiveAvgPool,
    AvgPool,
    Branches,
    Conv,
    Dropout,
    Linear,
    MaxPool,
    Network,
    Node,
    Residual,
    V,
)
from inceptionnet.nets.variants import variant

# [v4] section 3.3 asks for 0.1 to 0.3; the released networks' figures for A, B and C blocks.
SCALE_A, SCALE_B, SCALE_C = 0.17, 0.10, 0.20


def plain_stem() -> dict[str, Node]:
    """[v4] figure 14 up to its last convolution, as in v3: 299×299×3 → 71×71×192."""
    return {
        "stem_conv_1": Conv(32, 3, 2, V),
        "stem_conv_2": Conv(32, 3, 1, V),
        "stem_conv_3": Conv(64, 3),
        "stem_pool": MaxPool(3, 2, V),
        "stem_conv_4": Conv(80),
        "stem_conv_5": Conv(192, 3, 1, V),
    }


# [v3] section 9, for that stem.
PLAIN_LOW_RESOLUTION: dict[int, dict[str, Node | None]] = {
    151: {"stem_conv_1": Conv(32, 3, 1, V)},
    79: {"stem_conv_1": Conv(32, 3, 1, V), "stem_pool": None},
}


def residual_a(b3x3dbl: tuple[int, int, int]) -> Residual:
    """[v4] figures 10 and 16 (v1: 32 32 32, v2: 32 48 64): 35×35."""
    first, second, third = b3x3dbl
    return Residual(
        Branches(
            b1x1=[Conv(32)],
            b3x3=[Conv(32), Conv(32, 3)],
            b3x3dbl=[Conv(first), Conv(second, 3), Conv(third, 3)],
        ),
        scale=SCALE_A,
    )


def residual_b(b1x1: int, b7x7: tuple[int, int, int]) -> Residual:
    """[v4] figures 11 and 17: 17×17."""
    first, second, third = b7x7
    return Residual(
        Branches(b1x1=[Conv(b1x1)], b7x7=[Conv(first), Conv(second, (1, 7)), Conv(third, (7, 1))]),
        scale=SCALE_B,
    )


def residual_c(b3x3: tuple[int, int, int], *, last: bool = False) -> Residual:
    """[v4] figures 13 and 19: 8×8. `last` is the release's closing block: unscaled and without ReLU."""
    first, second, third = b3x3
    return Residual(
        Branches(b1x1=[Conv(192)], b3x3=[Conv(first), Conv(second, (1, 3)), Conv(third, (3, 1))]),
        scale=None if last else SCALE_C,
        relu=not last,
    )


def reduction_b(b3x3: int, b3x3_2: int, b3x3dbl: tuple[int, int]) -> Branches:
    """[v4] figures 12 and 18: 17×17 → 8×8."""
    return Branches(
        pool=[MaxPool(3, 2, V)],
        b3x3=[Conv(256), Conv(b3x3, 3, 2, V)],
        b3x3_2=[Conv(256), Conv(b3x3_2, 3, 2, V)],
        b3x3dbl=[Conv(256), Conv(b3x3dbl[0], 3), Conv(b3x3dbl[1], 3, 2, V)],
    )


V1 = Network(
    name="inception_resnet_v1",
    summary="Inception-ResNet-v1 as drawn",
    paper="[v4] figures 10 to 15",
    input_size=299,
    conventions=CONVENTIONS,
    body={
        **plain_stem(),
        "stem_conv_6": Conv(256, 3, 2, V),
        **{f"residual_a{i}": residual_a((32, 32, 32)) for i in range(1, 6)},
        "reduction_a": reduction_a(k=192, l=192, m=256, n=384),
        **{f"residual_b{i}": residual_b(128, (128, 128, 128)) for i in range(1, 11)},
        "reduction_b": reduction_b(384, 256, (256, 256)),
        **{f"residual_c{i}": residual_c((192, 192, 192)) for i in range(1, 6)},
    },
    head=head(dropout=0.2),
    aux={"residual_b10": aux_head()},  # not drawn; the one released with v2
    low_resolution=PLAIN_LOW_RESOLUTION,
)

FACENET = variant(
    V1,
    name="inception_resnet_v1.facenet",
    summary="released for faces: a sixth, unscaled C block and a 512-d embedding with batch norm",
    paper="facenet release of [v4]'s Inception-ResNet-v1",
    input_size=160,
    body={
        "reduction_a": pool_last(reduction_a(k=192, l=192, m=256, n=384)),
        "reduction_b": pool_last(reduction_b(384, 256, (256, 256))),
        "residual_c6": residual_c((192, 192, 192), last=True),
    },
    head={
        "pool": AdaptiveAvgPool(),
        "dropout": Dropout(0.6),
        "embedding": Linear(512, norm=True),
        "logits": Linear(1000),
    },
    aux={},
)

V2 = Network(
    name="inception_resnet_v2",
    summary="Inception-ResNet-v2 as drawn: Inception-v4's stem, 5/10/5 blocks",
    paper="[v4] figures 3, 15 to 19",
    input_size=299,
    conventions=CONVENTIONS,
    body={
        **stem(),
        **{f"residual_a{i}": residual_a((32, 48, 64)) for i in range(1, 6)},
        "reduction_a": reduction_a(k=256, l=256, m=384, n=384),
        **{f"residual_b{i}": residual_b(192, (128, 160, 192)) for i in range(1, 11)},
        "reduction_b": reduction_b(384, 288, (288, 320)),
        **{f"residual_c{i}": residual_c((192, 224, 256)) for i in range(1, 6)},
    },
    head=head(dropout=0.2),
    aux={"residual_b10": aux_head()},
    low_resolution=LOW_RESOLUTION,
)

V2_SLIM = Network(
    name="inception_resnet_v2.slim",
    summary="released: v3's stem and one Inception-A-like module, 10/20/10 blocks, 1×1×1536 before the pool",
    paper="TF-slim release of [v4]'s Inception-ResNet-v2",
    input_size=299,
    conventions=CONVENTIONS,
    body={
        **plain_stem(),
        "stem_pool_2": MaxPool(3, 2, V),
        "mixed_5b": Branches(
            b1x1=[Conv(96)],
            b5x5=[Conv(48), Conv(64, 5)],
            b3x3dbl=[Conv(64), Conv(96, 3), Conv(96, 3)],
            pool=[AvgPool(3), Conv(64)],
        ),
        **{f"residual_a{i}": residual_a((32, 48, 64)) for i in range(1, 11)},
        "reduction_a": pool_last(reduction_a(k=256, l=256, m=384, n=384)),
        **{f"residual_b{i}": residual_b(192, (128, 160, 192)) for i in range(1, 21)},
        "reduction_b": pool_last(reduction_b(384, 288, (288, 320))),
        **{f"residual_c{i}": residual_c((192, 224, 256)) for i in range(1, 10)},
        "residual_c10": residual_c((192, 224, 256), last=True),
        "conv_7b": Conv(1536),
    },
    head=head(dropout=0.2),
    aux={"residual_b20": aux_head()},
    low_resolution=PLAIN_LOW_RESOLUTION,
)

NETWORKS = (V1, FACENET, V2, V2_SLIM)
