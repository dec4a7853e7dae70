"""The arguments of `create_model`, each as a function from tree to tree (no torch); edits.py applies them in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import get_args

from inceptionnet.errors import ConfigurationError, listed, nearest
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import GridTooSmall, analyse, minimum_size, pair
from inceptionnet.nets.chains import rewritten
from inceptionnet.nets.spec import (
    Conv,
    Dropout,
    GlobalPool,
    Hidden,
    Leaf,
    Linear,
    Network,
    Node,
    PoolKind,
    Residual,
    SeparableConv,
    V,
)
from inceptionnet.nets.variants import patched

Scale = float | Sequence[float]
"""One residual scale for all blocks, or one per stage (A, B, C)."""


def with_classes(network: Network, num_classes: int) -> Network:
    """The network with `num_classes` classes, in the auxiliary heads too; 0: without classifier, features as output."""
    if whole("num_classes", num_classes, least=0) == 0:
        head = {name: node for name, node in network.head.items() if name not in ("dropout", "logits")}
        return replace(network, head=head, aux={})

    def changed(chain: Mapping[str, Node]) -> dict[str, Node]:
        return {**chain, "logits": replace(chain["logits"], filters=num_classes)}  # type: ignore[type-var]

    return replace(network, head=changed(network.head), aux={on: changed(part) for on, part in network.aux.items()})


def with_width(network: Network, width: float) -> Network:
    """All numbers of filters but the logits' multiplied by `width`, rounded to a multiple of 8, at least 8."""
    if not (isinstance(width, int | float) and isfinite(width) and width > 0):
        raise ConfigurationError(f"width is {width!r}; expected a finite number above 0, such as 0.5")

    def scaled(leaf: Leaf) -> Leaf:
        if isinstance(leaf, Conv | SeparableConv | Linear):
            return replace(leaf, filters=max(8, int(leaf.filters * width / 8 + 0.5) * 8))
        return leaf

    def chain(parts: Mapping[str, Node]) -> dict[str, Node]:
        return {name: part if name == "logits" else rewritten(part, leaf=scaled) for name, part in parts.items()}

    stems = {
        size: {name: None if part is None else rewritten(part, leaf=scaled) for name, part in diff.items()}
        for size, diff in network.low_resolution.items()
    }
    aux = {on: chain(head) for on, head in network.aux.items()}
    return replace(network, body=chain(network.body), head=chain(network.head), aux=aux, low_resolution=stems)


def with_residual_scale(network: Network, scale: Scale) -> Network:
    """The network with residual blocks scaled by `scale`: one number, or one per stage (A, B, C)."""
    # A stage is a run of consecutive residual blocks, between reduction modules.
    stage_of: dict[str, int] = {}
    previous: Node | None = None
    for name, node in network.body.items():
        if isinstance(node, Residual):
            stage_of[name] = max(stage_of.values(), default=-1) + (not isinstance(previous, Residual))
        previous = node
    stages = max(stage_of.values(), default=-1) + 1
    if not stages:
        raise ConfigurationError(f"residual_scale is {scale!r}, but {network.name} has no residual blocks; omit it")
    scales = [scale] * stages if isinstance(scale, int | float) else list(scale)
    if len(scales) != stages or not all(isinstance(s, int | float) and isfinite(s) and s > 0 for s in scales):
        raise ConfigurationError(f"residual_scale is {scale!r}; expected one number above 0, or {stages} of them")

    def scaled(node: Node, stage: int) -> Node:
        assert isinstance(node, Residual)
        return node if node.scale is None else replace(node, scale=float(scales[stage]))

    diff = {name: scaled(network.body[name], stage) for name, stage in stage_of.items()}
    return replace(network, body=patched(network.body, diff))


def with_dropout(network: Network, p: float) -> Network:
    """The network with dropout probability `p` before the logits."""
    if not (isinstance(p, int | float) and 0 <= p < 1):
        raise ConfigurationError(f"dropout is {p!r}; expected a probability from 0 to below 1")
    if "logits" not in network.head:
        return network  # no classifier
    return replace(network, head=patched(network.head, {"dropout": Dropout(float(p))}))


def with_aux(network: Network) -> Network:
    """The network itself, if it has auxiliary heads. Raises: ConfigurationError if it has none."""
    if not network.aux and "logits" not in network.head:
        raise ConfigurationError("aux=True needs classes, but num_classes is 0; omit one of them")
    if not network.aux:
        have = listed((name for name, other in NETWORKS.items() if other.aux), ordered=True)
        raise ConfigurationError(
            f"{network.name} has no auxiliary head, got aux=True; networks with auxiliary heads: {have}"
        )
    return network


def cut_after(network: Network, last: str) -> Network:
    """The network whose body ends with the endpoint `last`; auxiliary heads behind it go."""
    names = list(network.body)
    if last not in names:
        raise ConfigurationError(f"{network.name} has no endpoint {last!r}: {nearest(last, names)}")
    kept = names[: names.index(last) + 1]
    stems = {
        size: {name: part for name, part in diff.items() if name in kept}
        for size, diff in network.low_resolution.items()
    }
    return replace(
        network,
        body={name: network.body[name] for name in kept},
        aux={on: head for on, head in network.aux.items() if on in kept},
        low_resolution=stems,
    )


def with_embedding(network: Network, length: int) -> Network:
    """The network with another length of its embedding."""
    whole("embedding", length)
    if not isinstance(layer := network.head.get("embedding"), Linear):
        raise ConfigurationError(f"embedding is {length!r}, but {network.name} has no embedding; omit it")
    return replace(network, head=patched(network.head, {"embedding": replace(layer, filters=length)}))


def other_embedding(name: str, length: int) -> int | None:
    """The length of an embedding as a configuration has it: None for the network's own."""
    layer = NETWORKS[name].head.get("embedding")
    return None if isinstance(layer, Linear) and layer.filters == length else length


def with_head(network: Network, hidden: Sequence[Hidden], bias: bool, activation: str) -> Network:
    """The network with hidden layers before its dropout and logits; they stay where the classifier is taken away."""
    if activation not in ("softmax", "sigmoid"):
        raise ConfigurationError(f"activation is {activation!r}; expected 'softmax' or 'sigmoid'")
    if not network.head:
        return network  # the grid as it is
    head = dict(network.head)
    if isinstance(logits := head.get("logits"), Linear):
        head["logits"] = replace(logits, bias=bias)
    if hidden:
        names = [name for name in head if name != "logits"]
        last = names[-1:] if names[-1] == "dropout" else []
        first = names[: len(names) - len(last)]
        parts = {**head, "hidden": list(hidden)}
        head = {name: parts[name] for name in (*first, "hidden", *last, "logits") if name in parts}
    return replace(network, head=head, activation=activation)  # type: ignore[arg-type]  # checked above


def with_pool(network: Network, global_pool: str) -> Network:
    """The network with another global pool; with "", without a head, so that it gives its last grid."""
    if global_pool in get_args(PoolKind):
        pool = GlobalPool(global_pool)  # type: ignore[arg-type]  # it is one of them
        return replace(network, head=patched(network.head, {"pool": pool}))
    if global_pool:
        raise ConfigurationError(
            f"global_pool is {global_pool!r}; expected 'avg', 'max', 'avgmax', 'catavgmax', or '' for the grid "
            "without a pool"
        )
    if "logits" in network.head:
        raise ConfigurationError("global_pool is '', which gives a grid and no classes; set num_classes=0 with it")
    return replace(network, head={}, aux={})


def at_size(network: Network, size: int) -> Network:
    """The network for images of `size` px, with the paper's stem for that size if there is one.

    As in the released code, the valid convolution of an auxiliary head is no larger than its grid.
    """
    whole("input_size", size)
    diff = network.low_resolution.get(size, {})
    network = replace(network, input_size=size, body=patched(network.body, diff), low_resolution={})
    pools = replace(network, aux={on: {"pool": head["pool"]} for on, head in network.aux.items()})
    try:
        rows = analyse(pools)
    except GridTooSmall:
        smallest = minimum_size(pools)
        heads = " with its auxiliary head" if network.aux else ""
        without = "; aux=False removes the head (in a recipe: --set network.aux=false)" if network.aux else ""
        raise ConfigurationError(
            f"input_size is {size} px; {network.name}{heads} takes images of {smallest} px or more on each side"
            f"{without}"
        ) from None
    grids = {row.path: min(row.output[1:]) for row in rows}

    def fitted(node: Node, grid: int) -> Node:
        if isinstance(node, Conv) and node.padding == V:
            return replace(node, kernel=min(max(pair(node.kernel)), grid))
        return node

    aux = {
        on: {name: fitted(node, grids[f"aux.{on}.pool"]) for name, node in head.items()}
        for on, head in network.aux.items()
    }
    return replace(network, aux=aux)


def whole(argument: str, value: int, least: int = 1) -> int:
    """Check that `value` is a whole number of at least `least`, and return it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{argument} is {value!r}; expected a whole number, {least} or more")
    return value
