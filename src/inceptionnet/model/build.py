"""Building torch modules from a tree, and initialising them.

`build` returns ordinary modules; a module's name is its path in the tree (`Row.path`), so that the names of weights,
features and drawings agree. Parameters are on the meta device until `initialise` or a weights file fills them, so that
nothing is initialised twice or in vain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import sqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    Init,
    Leaf,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    Node,
    Residual,
    SeparableConv,
)


class Concatenation(nn.ModuleDict):
    """Parallel branches on the same input, concatenated along channels."""

    # torch.jit.script compiles a type of module once, and would take the same branches in another order for the same.
    __constants__: ClassVar[tuple[str, ...]] = ("order",)

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__(branches)
        self.order: tuple[str, ...] = tuple(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, sum of the branches' channels, H', W')."""
        return torch.cat([branch(x) for branch in self.values()], dim=1)


class ResidualBlock(nn.Module):
    """x + scale · closing(branches(x)), then ReLU except in the last block of the release."""

    def __init__(self, branches: nn.Module, closing: nn.Module, scale: float, relu: bool) -> None:
        super().__init__()
        self.branches = branches
        self.closing = closing
        self.scale = scale
        self.relu: nn.ReLU | nn.Identity = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        y: Tensor = self.relu(torch.add(x, self.closing(self.branches(x)), alpha=self.scale))
        return y

    def extra_repr(self) -> str:
        """The scale, for the repr."""
        return f"scale={self.scale}"


class SamePad(nn.Module):
    """TensorFlow's "same" padding for a strided window: the odd pixel of padding goes to the end."""

    def __init__(self, kernel: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H + a few, W + a few)."""
        top, bottom = same_padding(x.shape[2], self.kernel[0], self.stride)
        left, right = same_padding(x.shape[3], self.kernel[1], self.stride)
        return F.pad(x, (left, right, top, bottom))

    def extra_repr(self) -> str:
        """Kernel and stride, for the repr."""
        return f"kernel={self.kernel}, stride={self.stride}"


class SameMaxPool(SamePad):
    """Max pooling with TensorFlow's "same" padding, without materialising it: pixels outside the image are ignored."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, ⌈H / stride⌉, ⌈W / stride⌉)."""
        top, _ = same_padding(x.shape[2], self.kernel[0], self.stride)
        left, _ = same_padding(x.shape[3], self.kernel[1], self.stride)
        # With an odd pixel at the end, the last window extends beyond the border by that pixel.
        return F.max_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=True)


class MaxAvgPool(nn.Module):
    """Global maximum and average: their mean, or both concatenated, the average first, as timm's pools give them."""

    def __init__(self, concatenated: bool) -> None:
        super().__init__()
        self.concatenated = concatenated

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C), or (N, 2 · C)."""
        average, maximum = x.mean((2, 3)), x.amax((2, 3))
        return torch.cat([average, maximum], 1) if self.concatenated else 0.5 * (average + maximum)


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


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding before and after, along one side; in arithmetic that traces a symbolic length too."""
    total = kernel - 1 - (length - 1) % stride  # never negative: no kernel of the family is smaller than its stride
    return total // 2, total - total // 2


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


def initialise(model: nn.Module, network: Network) -> None:
    """Initialise every parameter and buffer of `model` that is still on the meta device, as published.

    Nothing happens where meta is the default device: it holds no values.

    Paper: truncated normal with the released std, or the released variance scaling (2 / fan-in; a factor of 1.3
    compensates the truncation at two std); biases 0, batch norm 1 and 0.
    """
    device = torch.get_default_device()
    if device.type == "meta":
        return
    inits = {path: init for row in analyse(network) for path, init in _inits(row, network.conventions)}
    for path, module in model.named_modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not any(tensor.is_meta for tensor in tensors):
            continue
        module.to_empty(device=device, recurse=False)
        if isinstance(module, nn.Conv2d | nn.Linear):
            _fill(module.weight, inits[path])
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.reset_parameters()


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


def _inits(row: Row, conventions: Conventions) -> list[tuple[str, Init]]:
    """Paths of a row's modules with weights, and the initialisation of each."""
    match row.node:
        case Conv(std=std):
            return [(f"{row.path}.conv", std or conventions.conv_init)]
        case SeparableConv(std=std):
            init = std or conventions.conv_init
            return [(f"{row.path}.depthwise", init), (f"{row.path}.pointwise", init)]
        case Linear(std=std):
            init = std or conventions.linear_init
            return [(row.path, init), (f"{row.path}.linear", init)]
    return []


@torch.no_grad()
def _fill(weight: Tensor, init: Init) -> None:
    fan_in = weight[0].numel()
    if init == "glorot uniform":
        bound = sqrt(6 / (fan_in + weight.shape[0]))
        weight.uniform_(-bound, bound)
        return
    std = sqrt(1.3 * 2 / fan_in) if init == "variance scaling" else float(init)
    # A normal truncated at two std, by the inverse of its distribution function: several times as fast as
    # nn.init.trunc_normal_ (benchmarks/building.py).
    edge = 0.9544997361036416  # erf(sqrt(2)): the share of a normal within two std
    weight.uniform_(-edge, edge).erfinv_().mul_(std * sqrt(2)).clamp_(-2 * std, 2 * std)
