"""The head of a file that holds the modules themselves: every layer is there, in order, with its class.

What is not there is a `forward` that its author wrote. Those of torchvision, timm, Cadene, facenet-pytorch and of
nn.Sequential are known; of any other class it is assumed that the network comes first, then the one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from inceptionnet.errors import WeightsError, listed
from inceptionnet.nets.spec import Activation, BatchNorm, Dropout
from inceptionnet.weights.formats.stored import Module
from inceptionnet.weights.heads import Part
from inceptionnet.weights.layers import OF_LOSS, TORCH_EPS, Layers
from inceptionnet.weights.layouts.layout import Layout
from inceptionnet.weights.layouts.positions import CHILDREN
from inceptionnet.weights.torch_heads import TorchHead, checked

PUBLISHERS = ("torchvision.models.", "timm.models.", "pretrainedmodels.models.", "facenet_pytorch.models.")
"""Where the classes are whose `forward` is known."""
TIMM_SLOTS = {"global_pool", "head_drop"}
"""What timm calls the last modules of networks that have torchvision's names otherwise."""
CONTAINERS = {"Sequential", "ClassifierHead"}
WRAPPERS = {"DataParallel", "DistributedDataParallel", "OptimizedModule", "AveragedModel", "FullyShardedDataParallel"}
"""Modules that call what they contain and nothing else."""
NOTHING = {"Identity", "Flatten", "Flatten3d", "FeatureAlphaDropout"}
DROPOUTS = {"Dropout", "Dropout1d", "Dropout2d", "AlphaDropout"}
FUNCTIONS = {
    "ReLU": "relu", "ReLU6": "relu6", "SELU": "selu", "SiLU": "silu", "Swish": "silu", "Tanh": "tanh",
    "Sigmoid": "sigmoid",
}  # fmt: skip
POOLS = {
    "AdaptiveAvgPool2d": "avg", "AvgPool2d": "avg", "FastAdaptiveAvgPool2d": "avg", "GlobalAvgPool2d": "avg",
    "AdaptiveMaxPool2d": "max", "AdaptiveConcatPool2d": "catmaxavg", "AdaptiveAvgMaxPool2d": "avgmax",
    "AdaptiveCatAvgMaxPool2d": "catavgmax",
}  # fmt: skip


def module_head(
    layers: Layers, modules: Mapping[str, Module], layout: Layout, prefix: str, body: Sequence[str]
) -> TorchHead | None:
    """The head of a module tree; None if no layer stands behind the grid.

    Args:
        prefix: of the network in the tree.
        body: the paths of the body's layers.

    Raises:
        WeightsError: a module of a kind that is not known, or an order that the tree does not tell.
    """
    network = prefix.rstrip(".")
    tops, assumed = _tops(layers, modules, layout, network, body)
    parts: list[Part] = []
    pool, activation = "avg", None
    for path in tops:
        for inner in _leaves(modules, path):
            module = modules[inner]
            if module.name in POOLS or module.name == "SelectAdaptivePool2d":
                pool = _pool(layers, inner, module)
            elif module.name in ("Softmax", "LogSoftmax"):
                activation = "softmax"
            else:
                parts += _part(layers, inner, module)
    if not any(part.tensors for part in parts):
        return TorchHead([], pool, activation, tuple(assumed)) if pool != "avg" else None
    return checked(layers, TorchHead(parts, pool, activation, tuple(assumed)))


def check_eps(layers: Layers, modules: Mapping[str, Module], body: Sequence[str], eps: float | None) -> None:
    """Raises: WeightsError if the body's batch norms have another eps than the network's."""
    for path in body:
        module = modules.get(path)
        if module and module.name.startswith("BatchNorm2d") and eps is not None:
            held = module.attributes.get("eps", eps)
            if isinstance(held, float) and held != eps:
                raise WeightsError(f"{layers.path}: {path}: batch norm with eps {held:g}, where the published network "
                                   f"has {eps:g}; its outputs would differ")  # fmt: skip


def _tops(
    layers: Layers, modules: Mapping[str, Module], layout: Layout, network: str, body: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The modules between the last grid and the logits, in order, and what is assumed."""
    kind = modules[network].kind if network in modules else ""
    inside = _behind(modules, network, body)
    aux = tuple(f"{network}.{entry}".strip(".") for names in layout.aux.values() for entry in names)
    inside = [path for path in inside if not any(a == path or a.startswith(f"{path}.") for a in aux)]
    assumed = []
    if kind.startswith(PUBLISHERS):
        slots = {name for order in CHILDREN.get(layout, ()) for name in order} | set(layout.classifier) | TIMM_SLOTS
        inside = [path for path in inside if path.rpartition(".")[2] in slots]
    elif kind and modules[network].name not in CONTAINERS:
        assumed.append(f"forward of {modules[network].name} is not in the file: assumed to be the published one")
    tops = list(inside)
    inner = network
    while inner:
        outer = inner.rpartition(".")[0]
        module = modules.get(outer)
        beside = [
            path
            for path in _children(modules, outer)
            if path != inner and not OF_LOSS.search(path) and not modules[path].name.endswith("Loss")
        ]
        if module and module.name in CONTAINERS:
            children = _children(modules, outer)
            before = [p for p in children[: children.index(inner)] if modules[p].name not in NOTHING]
            if before:
                raise WeightsError(f"{layers.path}: {before[0]} ({modules[before[0]].name}) stands before the network, "
                                   "which is not known here; save the network without it")  # fmt: skip
            tops += children[children.index(inner) + 1 :]
        elif module and module.name not in WRAPPERS:
            with_layers = [path for path in beside if _has_layers(layers, path)]
            own = [path for path in tops if _has_layers(layers, path)]
            if len(with_layers) + len(own) > 1:
                named = listed((*own, *with_layers), ordered=True)
                raise WeightsError(
                    f"{layers.path}: {named} stand behind the network, and the forward of {module.name}, which says "
                    f"how, is not in the file; state the order: {layers.how(_words((*own, *with_layers)))}"
                )
            if beside:
                tops += beside
                assumed.append(
                    f"forward of {module.name} is not in the file: the network, then {listed(beside, ordered=True)} "
                    "assumed"
                )
        inner = outer
    return tops, assumed


def inside_of(modules: Mapping[str, Module], prefix: str, body: Sequence[str]) -> list[str]:
    """The modules of the body, below the network's own, without auxiliary heads.

    Args:
        prefix, body: as for `module_head`.
    """
    network = prefix.rstrip(".")
    behind = _behind(modules, network, body)
    found = []
    for child in _children(modules, network):
        below = [path for path in modules if path == child or path.startswith(f"{child}.")]
        auxiliary = not {*below} & {*body} and any(modules[path].name in ("Conv2d", "Linear") for path in below)
        found += [] if child in behind or auxiliary else below
    return found


def _behind(modules: Mapping[str, Module], network: str, body: Sequence[str]) -> list[str]:
    """The network's children behind the last one with a layer of the body."""
    children = _children(modules, network)
    last = max(
        (i for i, path in enumerate(children) if any(b == path or b.startswith(f"{path}.") for b in body)), default=-1
    )
    return children[last + 1 :]


def _children(modules: Mapping[str, Module], path: str) -> list[str]:
    start = f"{path}." if path else ""
    return [p for p in modules if p and p.startswith(start) and "." not in p[len(start) :]]


def _leaves(modules: Mapping[str, Module], path: str) -> list[str]:
    """The module itself, or the parts of a Sequential."""
    if modules[path].name in CONTAINERS:
        return [leaf for child in _children(modules, path) for leaf in _leaves(modules, child)]
    return [path]


def _has_layers(layers: Layers, path: str) -> bool:
    return any(name == path or name.startswith(f"{path}.") for name in layers.tensors)


def _words(paths: Sequence[str]) -> list[str]:
    words = list(paths[:1])
    for path in paths[1:]:
        words += ["relu", path]
    return words


def _pool(layers: Layers, path: str, module: Module) -> str:
    held = module.attributes
    if module.name == "SelectAdaptivePool2d":
        return str(held.get("pool_type") or "avg").removeprefix("fast")
    size: Any = held.get("output_size", 1)
    if module.name.startswith("Adaptive") and size not in (1, (1, 1), [1, 1], None):
        raise WeightsError(f"{layers.path}: {path} ({module.name}) pools to a grid of {size}, not to a vector; this is "
                           "not known here")  # fmt: skip
    return POOLS[module.name]


def _part(layers: Layers, path: str, module: Module) -> list[Part]:
    """A module as a part of the head. Raises: WeightsError for a kind that is not known."""
    held = module.attributes
    name = module.name
    if name in NOTHING:
        return []
    if name in DROPOUTS:
        return [Part(path, Dropout(float(held.get("p", 0.5))))]
    if name in FUNCTIONS:
        return [Part(path, Activation(FUNCTIONS[name]))]  # type: ignore[arg-type]
    if name == "LeakyReLU":
        return [Part(path, Activation("leaky_relu", float(held.get("negative_slope", 0.01))))]
    if name == "GELU":
        return [Part(path, Activation("gelu_tanh" if held.get("approximate") == "tanh" else "gelu"))]
    if name == "ELU" and held.get("alpha", 1.0) == 1.0:
        return [Part(path, Activation("elu"))]
    if name == "Softplus" and (held.get("beta", 1.0), held.get("threshold", 20.0)) == (1.0, 20.0):
        return [Part(path, Activation("softplus"))]
    if name in ("Linear", "Conv2d", "PReLU") and path in layers.tensors:
        return [layers.part(path)]
    if name == "BatchNorm1d" and path in layers.tensors:
        part = layers.part(path)
        return [replace(part, node=BatchNorm(float(held.get("eps", TORCH_EPS))))]
    raise WeightsError(
        f"{layers.path}: {path} ({module.kind}): a layer of a kind that is not known, between the features and the "
        "logits; save a network without it"
    )
