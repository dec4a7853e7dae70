"""The head of a PyTorch file: what its state dict says of it, what is assumed, and what has to be stated.

A state dict has no activations, dropout or pools, only gaps in the numbers of a Sequential. One gap between two linear
layers is a ReLU (and dropout) in nearly all scripts: that is assumed and said. Anything else has to be stated, as the
layers' names and functions in order of computation ("fc1 relu fc2"), or the whole module has to be saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import torch

from inceptionnet.errors import WeightsError, listed, nearest
from inceptionnet.nets.spec import Activation, BatchNorm, Function, Linear
from inceptionnet.weights.heads import Part
from inceptionnet.weights.layers import TORCH_EPS, Layers

POOLS = ("avg", "max", "avgmax", "catavgmax", "catmaxavg")
"""Words for the global pool of a stated head; `catmaxavg` is fastai's order, the maximum first."""


@dataclass(frozen=True)
class TorchHead:
    """The layers between the last grid and the logits."""

    parts: Sequence[Part]
    pool: str = "avg"
    activation: str | None = None
    assumed: tuple[str, ...] = ()
    """One short clause for each thing that the file does not say."""
    dropped: Mapping[str, str] = field(default_factory=dict)


def stated_head(layers: Layers, stated: str) -> TorchHead:
    """The head that the caller states: names of layers and functions, in order of computation.

    Raises:
        WeightsError: a word that is no layer, pool or function, or layers that do not fit each other.
    """
    words = stated.split()
    pool, parts, activation = "avg", [], None
    if words and words[0] in POOLS and words[0] not in layers.tensors:
        pool = words.pop(0)
    if words and words[-1] in ("softmax", "sigmoid") and words[-1] not in layers.tensors:
        activation = words.pop()
    short = {name.rpartition(".")[2]: name for name in layers.tensors}
    for word in words:
        if word in layers.tensors:
            parts.append(layers.part(word))
        elif word in get_args(Function):
            parts.append(Part(word, Activation(word)))  # type: ignore[arg-type]
        elif word in ("dropout", "identity", "flatten"):
            continue
        elif inner := [name for name in layers.tensors if name.startswith(f"{word}.")]:
            parts += _sequence(layers, inner)[0]
        elif word in short:
            parts.append(layers.part(short[word]))
        else:
            known = [*layers.tensors, *get_args(Function)]
            raise WeightsError(f"{layers.path}: head has {word!r}, which is no layer outside the body and no function; "
                               f"{nearest(word, known)}")  # fmt: skip
    used = {part.name for part in parts}
    dropped = {name: "not in the stated head" for name in layers.tensors if name not in used}
    head = TorchHead(parts, pool, activation, (), dropped)
    return checked(layers, head)


def read_head(layers: Layers) -> TorchHead | None:
    """The head that the names and shapes tell; None if there are no layers.

    Raises:
        WeightsError: layers whose order or activations the file does not tell, or of an unknown kind.
    """
    if not layers.tensors:
        return None
    groups = _groups(layers.tensors)
    if len(groups) > 1:
        raise _several(layers, groups)
    names = next(iter(groups.values()))
    parts, assumed = _sequence(layers, names)
    if len([part for part in parts if isinstance(part.node, Linear)]) and isinstance(parts[-1].node, BatchNorm):
        raise WeightsError(f"{layers.path}: {parts[-1].name}: batch norm after the logits, which is not known here; "
                           "fold it into the last linear layer before saving")  # fmt: skip
    if isinstance(parts[-1].node, Linear) and not parts[-1].node.bias:
        assumed = (*assumed, f"{parts[-1].name}: linear without bias assumed")  # not cosines, as of ArcFace
    return checked(layers, TorchHead(parts, assumed=assumed))


def checked(layers: Layers, head: TorchHead) -> TorchHead:
    """The head, once its layers fit each other and the grid; its pool follows from the first layer's width.

    Raises:
        WeightsError: layers that do not fit.
    """
    width, pool, assumed = layers.width, head.pool, list(head.assumed)
    parts = list(head.parts)
    first = next((i for i, part in enumerate(parts) if part.tensors), None)
    if first is not None and pool == "avg" and _takes(parts[first]) == 2 * width:
        own = parts[first].name in layers.usual
        if not (own or layers.fastai):
            raise WeightsError(
                f"{layers.path}: {parts[first].name} takes {2 * width} values for {width} channels, average and "
                "maximum in an order that the file does not tell; state it: "
                f"{layers.how(['catavgmax (or catmaxavg)', *(p.name for p in parts)])}"
            )
        pool = "catavgmax" if own else "catmaxavg"
        words = "average, then maximum (timm)" if own else "maximum, then average (fastai)"
        assumed.insert(0, f"global pool: {words} assumed")
    if pool in ("catavgmax", "catmaxavg"):
        width *= 2
    if pool == "catmaxavg":
        parts = _swapped(parts, layers.width)
        pool = "catavgmax"
    for part in parts:
        takes = _takes(part)
        if takes is not None and takes != width:
            raise WeightsError(
                f"{layers.path}: {part.name} takes {takes} values, but gets {width} from what is before it; if another "
                f"layer stands between, or the order is another, state it: {layers.how(p.name for p in parts)}"
            )
        width = part.node.filters if isinstance(part.node, Linear) else width
    return replace(head, parts=parts, pool=pool, assumed=tuple(assumed))


def _takes(part: Part) -> int | None:
    """How many values a layer takes; None if any number."""
    match part.node:
        case Linear():
            return int(part.tensors["weight"].shape[1])
        case BatchNorm():
            return len(part.tensors["mean"])
    return None


def _swapped(parts: list[Part], width: int) -> list[Part]:
    """The layers up to the first linear one for the average first, where the file's take the maximum first."""
    found, done = [], False
    for part in parts:
        if not done and part.tensors:
            done = isinstance(part.node, Linear)
            turned = {
                role: tensor if role == "bias" else torch.cat([tensor[..., width:], tensor[..., :width]], -1)
                for role, tensor in part.tensors.items()
            }
            part = replace(part, tensors=turned)
        found.append(part)
    return found


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Layers by the Sequential that numbers them, or alone; in order."""
    found: dict[str, list[str]] = {}
    for name in names:
        parent, _, number = name.rpartition(".")
        found.setdefault(parent if number.isdigit() else name, []).append(name)
    return found


def _several(layers: Layers, groups: Mapping[str, list[str]]) -> WeightsError:
    """The error for layers that no Sequential puts in order."""
    chain = [name for names in groups.values() for name in names]
    for name in chain:
        layers.part(name)  # a layer of an unknown kind is the cause that is named first
    first = [name for name in chain if _takes(layers.part(name)) in (layers.width, 2 * layers.width)]
    wide = [name for name in chain if layers.tensors[name]["weight"].dim() == 4]
    if wide:
        raise _unplaced(layers, wide[0], [name for name in first if name not in wide])
    linear = [name for name in first if name in layers.linear]
    if len(linear) > 1:
        sizes = listed((f"{name} ({layers.part(name).node.filters})" for name in linear), last="and")  # type: ignore[union-attr]
        return WeightsError(
            f"{layers.path}: {len(linear)} classifiers on the same features: {sizes}; state the one that is meant: "
            f"{layers.how([linear[-1]])}"
        )
    order = _chain(layers, chain)
    if loose := [name for name in chain if name not in order]:
        return _unplaced(layers, loose[0], order)
    words: list[str] = []
    for name in order:
        words += ["relu", name] if any(n in layers.linear for n in words) and name in layers.linear else [name]
    return WeightsError(
        f"{layers.path}: a head of {len(order)} layers, {listed(order, ordered=True)}, whose activations a state dict "
        f"does not tell; state them, for instance: {layers.how(words)}"
    )


def _unplaced(layers: Layers, name: str, others: Sequence[str]) -> WeightsError:
    shape = tuple(layers.tensors[name]["weight"].shape)
    return WeightsError(
        f"{layers.path}: {name}.weight of shape {shape}: a layer that the published network does not have, in a place "
        "that the file does not tell; if it takes no part in the logits, state the head without it: "
        f"{layers.how(others)}"
    )


def _chain(layers: Layers, names: Sequence[str]) -> list[str]:
    """The layers in the order in which each takes what is before it, as far as that goes."""
    order: list[str] = []
    width = layers.width
    while True:
        left = [name for name in names if name not in order]
        fits = [name for name in left if (takes := _takes(layers.part(name))) is None or takes == width]
        if not fits:
            return order
        norms = [name for name in fits if name not in layers.linear]
        order.append((norms or fits)[0])
        node = layers.part(order[-1]).node
        width = node.filters if isinstance(node, Linear) else width


def _sequence(layers: Layers, names: Sequence[str]) -> tuple[list[Part], tuple[str, ...]]:
    """The parts of a Sequential, with what is assumed to stand where its numbers have gaps."""
    parts: list[Part] = []
    assumed: list[str] = []
    before: int | None = None
    active = True  # whether an activation was assumed or read since the last linear layer
    for name in names:
        number = name.rpartition(".")[2]
        at = int(number) if number.isdigit() else 0
        part = layers.part(name)
        gap = at - before - 1 if before is not None else 0
        if gap > 2:
            words = " relu ".join(names).split()
            raise WeightsError(
                f"{layers.path}: {gap} modules without tensors between {parts[-1].name} and {name}, which a state dict "
                f"does not tell; state them: {layers.how(words)}"
            )
        if gap and not active:
            parts.append(Part(f"before {name}", Activation("relu")))
            assumed.append(f"activation between {_last(parts)} and {name}: relu{' and dropout' * (gap > 1)} assumed")
            active = True
        elif gap and parts:
            assumed.append(f"between {_last(parts)} and {name}: dropout assumed")
        if isinstance(part.node, BatchNorm):
            assumed.append(f"{name}: eps {TORCH_EPS:g} assumed")
        if isinstance(part.node, Activation):
            active = True
        if isinstance(part.node, Linear):
            active = False
        parts.append(part)
        before = at
    return parts, tuple(assumed)


def _last(parts: Sequence[Part]) -> str:
    return next(part.name for part in reversed(parts) if part.tensors)
