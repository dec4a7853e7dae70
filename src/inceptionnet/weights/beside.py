"""What a PyTorch file holds beside the network's body: layers of a head, and what is no layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from inceptionnet.nets.edits import Configuration
from inceptionnet.nets.spec import Branches, Conv, Linear, Node, Residual, SeparableConv
from inceptionnet.weights.formats.wrapped import AVERAGED
from inceptionnet.weights.layers import OF_LOGITS, Layers, no_part, not_layers, owners_of
from inceptionnet.weights.recognise import Found
from inceptionnet.weights.strangers import reparametrised


@dataclass(frozen=True)
class Beside:
    """Layers behind the body, and what else was found."""

    layers: Layers
    dropped: Mapping[str, str]
    """Tensors that are not used, each with the reason."""
    notes: tuple[str, ...]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Mean and std of the input's normalisation, for images in [0, 1]."""
    unclear: str
    """Why the logits may not be those of the layers alone; empty if they are."""


def beside(left: Mapping[str, Tensor], found: Found, path: Path, configuration: Configuration, width: int) -> Beside:
    """Sort the tensors that are neither of the body nor of auxiliary heads.

    Args:
        left: those tensors, by the file's names.
        width: channels of the last grid.
    """
    dropped: dict[str, str] = {}
    notes = []
    left = {name: tensor for name, tensor in left.items() if not name.endswith("num_batches_tracked")}
    if any("averaged" in reason for reason in found.copies.values()):  # of two classifiers, the averaged one
        plain = {name for name in left if not AVERAGED.search(name)}
        if len(plain) < len(left):
            dropped |= dict.fromkeys(plain, "averaged weights used instead")
            left = {name: tensor for name, tensor in left.items() if name not in plain}
    useless = not_layers(left)
    normalisation = _normalisation(left, configuration.in_channels)
    if normalisation is not None:
        left = {name: tensor for name, tensor in left.items() if not _is_statistic(name)}
        notes.append("the input's normalisation (mean, std) moved into the preprocessing")
    scalars = {name for name, t in left.items() if OF_LOGITS.search(name) and t.numel() == 1 and name not in useless}
    useless |= dict.fromkeys((name for name in scalars if float(left[name]) == 1), "a factor of 1")
    left = {name: tensor for name, tensor in left.items() if name not in useless}
    layers = Layers(
        path,
        owners_of(left),
        width,
        tuple(f"{found.prefix}{name}" for name in found.layout.classifier),
        fastai=found.prefix.startswith("0."),
    )
    return Beside(layers, {**dropped, **useless}, tuple(notes), normalisation, _unclear(left, scalars))


def _unclear(left: Mapping[str, Tensor], scalars: set[str]) -> str:
    if scales := [name for name in left if name in scalars]:
        return (
            f"{scales[0]} = {float(left[scales[0]]):.4g}: a number that the logits may be scaled by, in a place that "
            "the file does not tell; fold it into the classifier, or state the head without it, with convert --head"
        )
    if why := reparametrised(left, left):
        return f"a head {why}"
    if unknown := no_part(left):
        shape = tuple(left[unknown[0]].shape)
        return (
            f"{unknown[0]} of shape {shape}: no weight, bias or statistics of a layer that is known, and the file does "
            "not tell what it is for; if the logits do not need it, state the head without it, with convert --head"
        )
    return ""


def channels_of(node: Node, path: str, ours: Mapping[str, Tensor]) -> int:
    """The number of channels that a chain at `path` ends with, by the file's tensors; 0 if they do not tell."""
    match node:
        case Branches(chains=chains):
            return sum(channels_of(chain, f"{path}.{name}", ours) for name, chain in chains.items())
        case Residual():
            return _rows_of(ours, f"{path}.closing.conv.weight")
        case Mapping():
            named = [name for name in node if any(key.startswith(f"{path}.{name}.") for key in ours)]
            return channels_of(node[named[-1]], f"{path}.{named[-1]}", ours) if named else 0
        case Conv() | SeparableConv():
            kind = "conv" if isinstance(node, Conv) else "pointwise"
            return _rows_of(ours, f"{path}.{kind}.weight")
        case Linear():
            return _rows_of(ours, f"{path}.weight") or _rows_of(ours, f"{path}.linear.weight")
        case list() | tuple():
            return channels_of(node[-1], f"{path}.{len(node) - 1}", ours)
    return 0


def _rows_of(ours: Mapping[str, Tensor], name: str) -> int:
    return len(ours[name]) if name in ours and ours[name].dim() else 0


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2].rpartition("_")[2] in ("mean", "std")


def _normalisation(tensors: Mapping[str, Tensor], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The mean and std that the network's input is normalised with, in the range [0, 1], if the file has them."""
    held: dict[str, list[float]] = {}
    for name, tensor in tensors.items():
        if _is_statistic(name) and tensor.numel() in (1, channels) and "running" not in name:
            held[name.rpartition("_")[2].rpartition(".")[2]] = [float(value) for value in tensor.flatten()]
    if held.keys() != {"mean", "std"}:
        return None
    scale = 255 if max(held["std"]) > 2 or max(map(abs, held["mean"])) > 1 else 1
    return tuple(v / scale for v in held["mean"]), tuple(v / scale for v in held["std"])
