"""Inception-v4. [v4] Szegedy et al., Inception-v4, Inception-ResNet and the impact of residual connections on learning,
arXiv:1602.07261, figures 3 to 9.

`inception_v4` is as drawn. Three places in the drawings do not fit or are misprinted, and are read as follows: the last
192 convolution of the stem (figure 3) has stride 2, or its branches could not be joined; the third branch of
Inception-B (figure 5) prints 1×7 twice and is 1×7 then 7×1; and no auxiliary head is drawn, though one was trained
with, so it is the released one. The released network (`.slim`) orders three factorised pairs the other way round, and
its branches come as 1×1, second, third, pool.
"""

from __future__ import annotations

from inceptionnet.nets.heads import aux_head, head
from inceptionnet.nets.spec import (
    AvgPool,
    Branches,
    Chain,
    Conv,
    Conventions,
    MaxPool,
    Network,
    Node,
    V,
)
from inceptionnet.nets.variants import variant

CONVENTIONS = Conventions(
    same="tensorflow",
    average_counts_padding=False,
    batch_norm_eps=1e-3,
    conv_init="variance scaling",
    linear_init="glorot uniform",
)


def stem() -> dict[str, Node]:
    """[v4] figure 3: 299×299×3 → 35×35×384. Shared with Inception-ResNet-v2."""
    return {
        "stem_conv_1": Conv(32, 3, 2, V),
        "stem_conv_2": Conv(32, 3, 1, V),
        "stem_conv_3": Conv(64, 3),
        "stem_mixed_1": Branches(pool=[MaxPool(3, 2, V)], b3x3=[Conv(96, 3, 2, V)]),
        "stem_mixed_2": Branches(
            b3x3=[Conv(64), Conv(96, 3, 1, V)],
            b7x7=[Conv(64), Conv(64, (7, 1)), Conv(64, (1, 7)), Conv(96, 3, 1, V)],
        ),
        "stem_mixed_3": Branches(b3x3=[Conv(192, 3, 2, V)], pool=[MaxPool(3, 2, V)]),
    }


# [v3] section 9 gives stride 1 in the first layer at 151 px and, at 79 px, no pool after it. Here the first pool is
# one of two branches, so both lose their stride: 75×75 → 73×73, the grid that the 299 px network has there.
LOW_RESOLUTION: dict[int, dict[str, Node | None]] = {
    151: {"stem_conv_1": Conv(32, 3, 1, V)},
    79: {
        "stem_conv_1": Conv(32, 3, 1, V),
        "stem_mixed_1": Branches(pool=[MaxPool(3, 1, V)], b3x3=[Conv(96, 3, 1, V)]),
    },
}


def inception_a() -> Branches:
    """[v4] figure 4: 35×35×384 → 35×35×384."""
    return Branches(
        pool=[AvgPool(3), Conv(96)],
        b1x1=[Conv(96)],
        b3x3=[Conv(64), Conv(96, 3)],
        b3x3dbl=[Conv(64), Conv(96, 3), Conv(96, 3)],
    )


def reduction_a(k: int, l: int, m: int, n: int) -> Branches:  # noqa: E741  the paper's letters
    """[v4] figure 7 with table 1's letters: 35×35 → 17×17. Shared by all three networks of the paper."""
    return Branches(
        pool=[MaxPool(3, 2, V)],
        b3x3=[Conv(n, 3, 2, V)],
        b3x3dbl=[Conv(k), Conv(l, 3), Conv(m, 3, 2, V)],
    )


def inception_b() -> Branches:
    """[v4] figure 5: 17×17×1024 → 17×17×1024."""
    return Branches(
        pool=[AvgPool(3), Conv(128)],
        b1x1=[Conv(384)],
        b7x7=[Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))],
        b7x7dbl=[Conv(192), Conv(192, (1, 7)), Conv(224, (7, 1)), Conv(224, (1, 7)), Conv(256, (7, 1))],
    )


def reduction_b() -> Branches:
    """[v4] figure 8: 17×17×1024 → 8×8×1536."""
    return Branches(
        pool=[MaxPool(3, 2, V)],
        b3x3=[Conv(192), Conv(192, 3, 2, V)],
        b7x7x3=[Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, 2, V)],
    )


def inception_c() -> Branches:
    """[v4] figure 6: 8×8×1536 → 8×8×1536."""
    return Branches(
        pool=[AvgPool(3), Conv(256)],
        b1x1=[Conv(256)],
        b3x3=[Conv(384), Branches(b1x3=[Conv(256, (1, 3))], b3x1=[Conv(256, (3, 1))])],
        b3x3dbl=[
            Conv(384),
            Conv(448, (1, 3)),
            Conv(512, (3, 1)),
            Branches(b3x1=[Conv(256, (3, 1))], b1x3=[Conv(256, (1, 3))]),
        ],
    )


PAPER = Network(
    name="inception_v4",
    summary="Inception-v4 as drawn",
    paper="[v4] figures 3 to 9",
    input_size=299,
    conventions=CONVENTIONS,
    body={
        **stem(),
        **{f"inception_a{i}": inception_a() for i in range(1, 5)},
        "reduction_a": reduction_a(k=192, l=224, m=256, n=384),
        **{f"inception_b{i}": inception_b() for i in range(1, 8)},
        "reduction_b": reduction_b(),
        **{f"inception_c{i}": inception_c() for i in range(1, 4)},
    },
    head=head(dropout=0.2),
    aux={"inception_b7": aux_head()},
    low_resolution=LOW_RESOLUTION,
)


def pool_last(module: Branches) -> Branches:
    """The released order of branches: a module's pool comes last."""
    chains = dict(module.chains)
    pool = chains.pop("pool")
    return Branches(**chains, pool=pool)


def slim_inception_b() -> Branches:
    """As released: the long branch begins with 7×1."""
    b = inception_b().chains
    flipped: Chain = [Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))]
    return pool_last(Branches(**{**b, "b7x7dbl": flipped}))


def slim_inception_c() -> Branches:
    """As released: 3×1 before 1×3, and the split that closes the branch starts with 1×3."""
    c = inception_c().chains
    flipped: Chain = [
        Conv(384),
        Conv(448, (3, 1)),
        Conv(512, (1, 3)),
        Branches(b1x3=[Conv(256, (1, 3))], b3x1=[Conv(256, (3, 1))]),
    ]
    return pool_last(Branches(**{**c, "b3x3dbl": flipped}))


SLIM = variant(
    PAPER,
    name="inception_v4.slim",
    summary="released: the 1×7/7×1 and 1×3/3×1 pairs in another order, pools last",
    paper="TF-slim release of [v4]",
    body={
        "stem_mixed_2": Branches(
            b3x3=[Conv(64), Conv(96, 3, 1, V)],
            b7x7=[Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, 1, V)],
        ),
        **{f"inception_a{i}": pool_last(inception_a()) for i in range(1, 5)},
        "reduction_a": pool_last(reduction_a(k=192, l=224, m=256, n=384)),
        **{f"inception_b{i}": slim_inception_b() for i in range(1, 8)},
        "reduction_b": pool_last(reduction_b()),
        **{f"inception_c{i}": slim_inception_c() for i in range(1, 4)},
    },
)

NETWORKS = (PAPER, SLIM)
