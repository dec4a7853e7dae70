"""What stands on the bodies: the head, and the auxiliary head that v3, v4 and the residual networks share."""

from __future__ import annotations

from inceptionnet.nets.spec import AdaptiveAvgPool, AvgPool, Conv, Dropout, Linear, Node, V


def head(*, dropout: float, classes: int = 1000) -> dict[str, Node]:
    """Global average pool, dropout of that share, logits."""
    return {"pool": AdaptiveAvgPool(), "dropout": Dropout(dropout), "logits": Linear(classes)}


def aux_head(*, norm: bool = True, conv_std: float | None = None, logits_std: float | None = None) -> dict[str, Node]:
    """As released, for the last 17×17 grid; at larger inputs the mean over its grid is taken before the logits."""
    return {
        "pool": AvgPool(5, 3, V),
        "reduce": Conv(128, norm=norm),
        "conv": Conv(768, 5, 1, V, norm=norm, std=conv_std),
        "grid": AdaptiveAvgPool(),
        "logits": Linear(1000, std=logits_std),
    }
