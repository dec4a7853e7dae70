"""The tensors of a described Keras layer, by role and in torch's order of axes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError
from inceptionnet.model.build import NORM, tensors_of
from inceptionnet.nets.analysis import analyse
from inceptionnet.nets.spec import Conv, Network
from inceptionnet.weights.description.graph import Call


def roles_of(call: Call, path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """weight and bias of a convolution or dense layer; mean, var, gamma and beta of a batch norm; those it has.

    Raises:
        WeightsError: the file lacks one that the description states.
    """
    c = call.config
    if call.kind == "BatchNormalization":
        names = {"mean": "moving_mean", "var": "moving_variance"}
        names |= {role: role for role, key in (("gamma", "scale"), ("beta", "center")) if c.get(key, True)}
        axes = 1
    else:
        names = {"weight": "kernel", **({"bias": "bias"} if c.get("use_bias", True) else {})}
        axes = 2 if call.kind == "Dense" else 4
    found = {}
    for role, name in names.items():
        tensor = tensors.get(f"{call.name}/{name}")
        wanted = axes if role == "weight" else 1
        if tensor is None or tensor.dim() != wanted:
            got = "none" if tensor is None else f"{tensor.dim()}"
            raise WeightsError(
                f"{path}: expected {call.name}/{name} with {wanted} axes, got {got}; get the complete file"
            )
        found[role] = tensor
    if "weight" in found:
        found["weight"] = found["weight"].t() if axes == 2 else found["weight"].permute(3, 2, 0, 1)
    return found


def body_of(
    network: Network, layers: Mapping[str, tuple[Call, Call | None]], path: Path, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str], int]:
    """The tensors of a network's convolutions under this package's names, those computed, and biases folded.

    Raises:
        WeightsError: as `roles_of`.
    """
    ours: dict[str, Tensor] = {}
    computed: dict[str, str] = {}
    folded = 0
    for row in analyse(network):
        if row.path not in layers or not isinstance(row.node, Conv):
            continue
        names = tensors_of(row, network.conventions)
        convolution, norm = layers[row.path]
        roles = roles_of(convolution, path, tensors)
        if norm is not None:
            statistics = roles_of(norm, path, tensors)
            if (bias := roles.pop("bias", None)) is not None:
                if bias.shape != statistics["mean"].shape:
                    raise WeightsError(
                        f"{path}: {convolution} has {len(bias)} biases for {len(statistics['mean'])} channels"
                    )
                statistics["mean"] = statistics["mean"] - bias  # the bias only shifts the mean
                folded += 1
            roles |= completed(statistics, names, computed)
        ours |= {names[role]: tensor for role, tensor in roles.items()}
    return ours, computed, folded


def completed(roles: dict[str, Tensor], names: Mapping[str, str], computed: dict[str, str]) -> dict[str, Tensor]:
    """A batch norm's tensors with the gamma of 1 and beta of 0 that Keras does not store."""
    for role, fill in (("gamma", torch.ones_like), ("beta", torch.zeros_like)):
        if role not in roles:
            roles[role] = fill(roles["mean"])
            computed[names[role]] = f"computed: {role} is {int(role == 'gamma')}, which the file omits"
    assert roles.keys() == NORM.keys()
    return roles
