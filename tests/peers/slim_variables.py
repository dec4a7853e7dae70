"""Names and values of the variables in TF-slim's checkpoints of Inception-v4 and Inception-ResNet-v2.

Written from the two networks' variable scopes in TF-slim; nothing here imports the package. The values are those of
the reference networks of tests/reference, whose layers run in the order in which the scopes are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..reference.blocks import ConvBN
from ..reference.transfer import WEIGHTED, executed_layers

V4_AUX = ("AuxLogits/Conv2d_1b_1x1", "AuxLogits/Conv2d_2a", "AuxLogits/Aux_logits")
RESNET_V2_AUX = ("AuxLogits/Conv2d_1b_1x1", "AuxLogits/Conv2d_2a_5x5", "AuxLogits/Logits")


def branch(number: int, *convolutions: str) -> list[str]:
    return [f"Branch_{number}/Conv2d_{convolution}" for convolution in convolutions]


V4_A = [
    *branch(0, "0a_1x1"),
    *branch(1, "0a_1x1", "0b_3x3"),
    *branch(2, "0a_1x1", "0b_3x3", "0c_3x3"),
    *branch(3, "0b_1x1"),
]
V4_B = [
    *branch(0, "0a_1x1"),
    *branch(1, "0a_1x1", "0b_1x7", "0c_7x1"),
    *branch(2, "0a_1x1", "0b_7x1", "0c_1x7", "0d_7x1", "0e_1x7"),
    *branch(3, "0b_1x1"),
]
V4_C = [
    *branch(0, "0a_1x1"),
    *branch(1, "0a_1x1", "0b_1x3", "0c_3x1"),
    *branch(2, "0a_1x1", "0b_3x1", "0c_1x3", "0d_1x3", "0e_3x1"),
    *branch(3, "0b_1x1"),
]
REDUCTION_A = [*branch(0, "1a_3x3"), *branch(1, "0a_1x1", "0b_3x3", "1a_3x3")]
BLOCK35 = [
    *branch(0, "1x1"),
    *branch(1, "0a_1x1", "0b_3x3"),
    *branch(2, "0a_1x1", "0b_3x3", "0c_3x3"),
    "Conv2d_1x1",
]
BLOCK17 = [*branch(0, "1x1"), *branch(1, "0a_1x1", "0b_1x7", "0c_7x1"), "Conv2d_1x1"]
BLOCK8 = [*branch(0, "1x1"), *branch(1, "0a_1x1", "0b_1x3", "0c_3x1"), "Conv2d_1x1"]


def v4_scopes() -> Iterator[str]:
    """Of each layer with weights, without the auxiliary head."""
    modules = {
        "Mixed_3a": branch(1, "0a_3x3"),
        "Mixed_4a": [*branch(0, "0a_1x1", "1a_3x3"), *branch(1, "0a_1x1", "0b_1x7", "0c_7x1", "1a_3x3")],
        "Mixed_5a": branch(0, "1a_3x3"),
        **{f"Mixed_5{letter}": V4_A for letter in "bcde"},
        "Mixed_6a": REDUCTION_A,
        **{f"Mixed_6{letter}": V4_B for letter in "bcdefgh"},
        "Mixed_7a": [*branch(0, "0a_1x1", "1a_3x3"), *branch(1, "0a_1x1", "0b_1x7", "0c_7x1", "1a_3x3")],
        **{f"Mixed_7{letter}": V4_C for letter in "bcd"},
    }
    yield from ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
    yield from (f"{module}/{layer}" for module, layers in modules.items() for layer in layers)
    yield "Logits/Logits"


def resnet_v2_scopes() -> Iterator[str]:
    """Of each layer with weights, without the auxiliary head."""
    modules = {
        "Mixed_5b": [
            *branch(0, "1x1"),
            *branch(1, "0a_1x1", "0b_5x5"),
            *branch(2, "0a_1x1", "0b_3x3", "0c_3x3"),
            *branch(3, "0b_1x1"),
        ],
        **{f"Repeat/block35_{i}": BLOCK35 for i in range(1, 11)},
        "Mixed_6a": REDUCTION_A,
        **{f"Repeat_1/block17_{i}": BLOCK17 for i in range(1, 21)},
        "Mixed_7a": [
            *branch(0, "0a_1x1", "1a_3x3"),
            *branch(1, "0a_1x1", "1a_3x3"),
            *branch(2, "0a_1x1", "0b_3x3", "1a_3x3"),
        ],
        **{f"Repeat_2/block8_{i}": BLOCK8 for i in range(1, 10)},
        "Block8": BLOCK8,
    }
    yield from ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    yield from (f"{module}/{layer}" for module, layers in modules.items() for layer in layers)
    yield from ("Conv2d_7b_1x1", "Logits/Logits")


class Aux(nn.Module):
    """The auxiliary head of both networks, on a 17×17 grid."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.reduce = ConvBN(in_channels, 128, 1)
        self.grid = ConvBN(128, 768, 5)
        self.logits = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(torch.flatten(self.grid(self.reduce(F.avg_pool2d(x, 5, stride=3))), 1))


def checkpoint(
    root: str, body: nn.Module, scopes: Iterable[str], aux: nn.Module, aux_scopes: Iterable[str]
) -> dict[str, np.ndarray]:
    """All variables of a network and its auxiliary head by name; there is no gamma, so each must be 1."""
    executed = [layer for _, layer in executed_layers(body, 96)]
    of_aux = [layer for layer in aux.modules() if isinstance(layer, WEIGHTED)]
    found = {**named(scopes, executed), **named(aux_scopes, of_aux)}
    return {f"{root}/{name}": value.contiguous().numpy() for name, value in found.items()}


def named(scopes: Iterable[str], layers: list[nn.Module]) -> dict[str, Tensor]:
    """TensorFlow's kernels are (height, width, in, out), those of dense layers (in, out)."""
    found: dict[str, Tensor] = {}
    rest = iter(layers)
    for scope in scopes:
        layer = next(rest)
        if isinstance(layer, nn.Conv2d):
            found[f"{scope}/weights"] = layer.weight.permute(2, 3, 1, 0)
        else:
            assert isinstance(layer, nn.Linear), f"{scope}: {layer}"
            found[f"{scope}/weights"] = layer.weight.T
        if layer.bias is not None:
            found[f"{scope}/biases"] = layer.bias
            continue
        norm = next(rest)
        assert isinstance(norm, nn.BatchNorm2d) and (norm.weight == 1).all(), f"{scope}: {norm}"
        found[f"{scope}/BatchNorm/beta"] = norm.bias
        found[f"{scope}/BatchNorm/moving_mean"] = norm.running_mean
        found[f"{scope}/BatchNorm/moving_variance"] = norm.running_var
    assert not list(rest), "more layers than names"
    return found
