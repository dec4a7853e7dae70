"""Initialising the parameters of a network that no weights file fills, by the rules and numbers of the releases."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from inceptionnet.nets.analysis import Row, analyse
from inceptionnet.nets.spec import Conv, Conventions, Init, Linear, Network, SeparableConv


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
