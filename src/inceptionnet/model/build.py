"""Building torch modules from a tree.

`build` returns ordinary modules; a module's name is its path in the tree (`Row.path`), so that the names of weights,
features and drawings agree. Parameters are on the meta device until `initialise` or a weights file fills them, so that
nothing is initialised twice or in vain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from inceptionnet.model.modules import Concatenation, MaxAvgPool, ResidualBlock, SameMaxPool, SamePad
from inceptionnet.nets.analysis import Row, analyse, closing, pair
from inceptionnet.nets.spec import (
    Activation,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Branches,
    Conv,
    Conventions,
    Dropout,
    GlobalPool,
    Leaf,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    Node,
    Residual,
    SeparableConv,
)

FUNCTIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, "tanh"),
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}
"""Activation functions without a parameter."""


def build(network: Network) -> tuple[nn.Module, nn.Module, nn.ModuleDict]:
    """Body, head and auxiliary heads of the network, with parameters on the meta device."""
    rows = {row.path: row for row in analyse(network)}
    with torch.device("meta"):
        heads = {on: _module(head, f"aux.{on}", rows, network.conventions) for on, head in network.aux.items()}
        body = _module(network.body, "body", rows, network.conventions)
        return body, _module(network.head, "head", rows, network.conventions), nn.ModuleDict(heads)


NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
"""Roles of batch norm's tensors, and torch's names for them."""


def tensors_of(row: Row, conventions: Conventions) -> dict[str, str]:
    """The tensors of a row: role (weight, bias, gamma, …) and name in the state dict."""
    path, node = row.path, row.node
    match node:
        case Conv():
            names, owner = {"weight": f"{path}.conv.weight"}, f"{path}.conv"
        case SeparableConv():
            names = {"depthwise": f"{path}.depthwise.weight", "pointwise": f"{path}.pointwise.weight"}
            owner = f"{path}.pointwise"
        case Linear():
            alone = not (node.relu or node.norm or row.input.height * row.input.width > 1)
            owner = path if alone else f"{path}.linear"
            names = {"weight": f"{owner}.weight"}
            if not (node.bias or node.norm):
                return names
        case BatchNorm():
            return {role: f"{path}.{name}" for role, name in NORM.items()}
        case _:
            return {}
    if not node.norm or conventions.batch_norm_eps is None:
        # A linear layer has batch norm only if it says so, a convolution if the network has any.
        return {**names, "bias": f"{owner}.bias"}
    return {**names, **{role: f"{path}.bn.{name}" for role, name in NORM.items()}}


def _module(node: Node, path: str, rows: Mapping[str, Row], conventions: Conventions) -> nn.Module:
    match node:
        case Branches(chains=chains):
            named = {name: _module(chain, f"{path}.{name}", rows, conventions) for name, chain in chains.items()}
            return Concatenation(named)
        case Residual(body=body, scale=scale, relu=relu):
            close = closing(rows[path].input.channels)
            return ResidualBlock(
                _module(body, f"{path}.branches", rows, conventions),
                _module(close, f"{path}.closing", rows, conventions),
                1.0 if scale is None else scale,
                relu,
            )
        case Mapping():
            parts = node.items()
        case Sequence():
            parts = {str(i): part for i, part in enumerate(node)}.items()
        case _:
            return _leaf(node, rows[path], conventions)
    return _sequence(**{name: _module(part, f"{path}.{name}", rows, conventions) for name, part in parts})


def _leaf(node: Leaf, row: Row, conventions: Conventions) -> nn.Module:
    channels = row.input.channels
    match node:
        case Conv():
            pad, padding = _padding(node, conventions)
            norm = conventions.batch_norm_eps if node.norm else None
            conv = nn.Conv2d(channels, node.filters, node.kernel, node.stride, padding, bias=norm is None)
            return _sequence(pad=pad, conv=conv, bn=_norm2d(node.filters, norm), relu=_relu(node.relu))
        case SeparableConv():
            pad, padding = _padding(node, conventions)
            norm = conventions.batch_norm_eps if node.norm else None
            wide = channels * node.multiplier
            depthwise = nn.Conv2d(channels, wide, node.kernel, node.stride, padding, groups=channels, bias=False)
            pointwise = nn.Conv2d(wide, node.filters, 1, bias=norm is None)
            return _sequence(
                pad=pad, depthwise=depthwise, pointwise=pointwise, bn=_norm2d(node.filters, norm), relu=_relu(True)
            )
        case MaxPool():
            pad, padding = _padding(node, conventions)
            if pad:
                return SameMaxPool(pad.kernel, pad.stride)
            return nn.MaxPool2d(node.kernel, node.stride, padding, ceil_mode=node.padding == "ceil")
        case AvgPool(kernel=kernel, stride=stride):
            # Only at stride 1 or without padding in this family, so "same" is symmetric.
            around = kernel // 2 if node.padding == "same" else 0
            return nn.AvgPool2d(kernel, stride, around, count_include_pad=conventions.average_counts_padding)
        case AdaptiveAvgPool(grid=grid):
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if grid == 1 else nn.AdaptiveAvgPool2d(grid)
        case GlobalPool(kind=kind):
            if kind == "max":
                return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
            return MaxAvgPool(kind == "catavgmax")
        case BatchNorm(eps=eps):
            return nn.BatchNorm1d(channels, eps=eps)
        case Activation(function=function, slope=slope):
            return nn.LeakyReLU(slope or 0.01) if function == "leaky_relu" else FUNCTIONS[function]()
        case LocalResponseNorm():
            return nn.LocalResponseNorm(node.size, node.alpha, node.beta, node.k)
        case Dropout(p=p):
            return nn.Dropout(p)
        case Linear():
            norm = conventions.batch_norm_eps if node.norm else None
            grid = row.input.height * row.input.width
            linear = nn.Linear(channels * grid, node.filters, bias=norm is None and node.bias)
            flatten = nn.Flatten() if grid > 1 else None
            bn = None if norm is None else nn.BatchNorm1d(node.filters, eps=norm)
            if node.relu or flatten or bn:
                return _sequence(flatten=flatten, linear=linear, bn=bn, relu=_relu(node.relu))
            return linear


def _sequence(**parts: nn.Module | None) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if part is not None))


def _norm2d(filters: int, eps: float | None) -> nn.Module | None:
    return None if eps is None else nn.BatchNorm2d(filters, eps=eps)


def _relu(wanted: bool) -> nn.Module | None:
    return nn.ReLU(inplace=True) if wanted else None


def _padding(node: Conv | SeparableConv | MaxPool, conventions: Conventions) -> tuple[SamePad | None, tuple[int, int]]:
    """A padding module, if symmetric padding is not enough, and the symmetric padding of the window itself."""
    height, width = pair(node.kernel)
    if node.padding not in ("same", "after"):
        return None, (0, 0)
    if node.stride > 1 and (node.padding == "after" or conventions.same == "tensorflow"):
        return SamePad((height, width), node.stride), (0, 0)
    return None, (height // 2, width // 2)
