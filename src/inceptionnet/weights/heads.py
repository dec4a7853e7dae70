"""The head of a file, from the global pool to the logits: layers as the file has them, to this package's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError
from inceptionnet.model.build import NORM
from inceptionnet.nets.spec import Activation, BatchNorm, Dropout, Hidden, Linear


@dataclass(frozen=True)
class Part:
    """One layer of a file's head, in the order of computation."""

    name: str
    """In the file, for messages."""
    node: Hidden
    """A linear layer without batch norm or activation of its own: those are parts too."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """By role, in torch's order of axes: weight and bias; gamma and beta (1 and 0 if absent), mean and var."""


@dataclass(frozen=True)
class Head:
    """What a `Configuration` says of a head, and the head's tensors under this package's names."""

    hidden: tuple[Hidden, ...]
    num_classes: int
    logits_bias: bool
    activation: str
    dropout: float | None
    """Before the logits; None: not known."""
    tensors: Mapping[str, Tensor]
    initialised: Mapping[str, str]
    """Tensors that the file omits, each with how they were computed."""


def head_of(parts: Sequence[Part], path: Path, activation: str | None = None) -> Head:
    """The head of these layers; the last linear one makes the logits.

    Args:
        activation: of the logits, "softmax" or "sigmoid"; default: sigmoid after a layer that says so or for a single
            logit, else softmax.

    Raises:
        WeightsError: no linear layer, or a layer after the logits that changes them.
    """
    parts = list(parts)
    last = max((i for i, part in enumerate(parts) if isinstance(part.node, Linear)), default=None)
    if last is None:
        raise WeightsError(f"{path}: expected a head that ends with a linear layer, got {_names(parts)}")
    after = [part for part in parts[last + 1 :] if not isinstance(part.node, Dropout)]
    if after and after[0].node == Activation("sigmoid"):
        activation, after = "sigmoid", after[1:]
    if after:
        raise WeightsError(
            f"{path}: {_names(after)} after the logits of {parts[last].name}, which this package's networks do not "
            "have; save the network without it"
        )
    logits, before = parts[last], parts[:last]
    dropout = None
    if before and isinstance(before[-1].node, Dropout):
        dropout, before = before[-1].node.p, before[:-1]
    classes = int(logits.tensors["weight"].shape[0])
    tensors: dict[str, Tensor] = {}
    computed: dict[str, str] = {}
    for i, part in enumerate(before):
        _name(part, f"head.hidden.{i}", tensors, computed)
    _name(logits, "head.logits", tensors, computed)
    return Head(
        tuple(part.node for part in before),
        classes,
        "bias" in logits.tensors,
        activation or ("sigmoid" if classes == 1 else "softmax"),
        dropout if dropout is not None or not before else 0.0,
        tensors,
        computed,
    )


def _name(part: Part, ours: str, tensors: dict[str, Tensor], computed: dict[str, str]) -> None:
    """The tensors of a layer under this package's names; of a batch norm, gamma and beta if the file omits them."""
    held = dict(part.tensors)
    if isinstance(part.node, BatchNorm):
        for role, fill in (("gamma", torch.ones_like), ("beta", torch.zeros_like)):
            if role not in held:
                held[role] = fill(held["mean"])
                computed[f"{ours}.{NORM[role]}"] = f"computed: {role} is {int(role == 'gamma')}, which the file omits"
    tensors |= {f"{ours}.{NORM.get(role, role)}": tensor for role, tensor in held.items()}


def _names(parts: Sequence[Part]) -> str:
    kinds = (p.node.function if isinstance(p.node, Activation) else type(p.node).__name__ for p in parts)
    return ", ".join(f"{part.name} ({kind})" for part, kind in zip(parts, kinds, strict=True)) or "none"
