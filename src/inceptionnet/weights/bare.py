"""State dicts of this package's networks, saved by torch alone: nothing in them says which network they are of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inceptionnet.analysis import Row, analyse, pair
from inceptionnet.build import tensors_of
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.edits import Configuration
from inceptionnet.errors import WeightsError
from inceptionnet.nets import NETWORKS
from inceptionnet.spec import Conv, SeparableConv
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.layouts.layout import TORCH, Layout


def bare(stored: Stored, name: str | None) -> tuple[Layout, Configuration]:
    """What a state dict with this package's own names is of: the network of that name, or the first that it fits.

    Raises:
        WeightsError: it fits no network, or not the one of that name.
    """
    tensors = stored.tensors
    fits = tuple(other for other in NETWORKS if _is_body_of(other, tensors))
    if not fits or (name is not None and name not in fits):
        known = f"fits {' or '.join(fits)}" if fits else "fits no network"
        raise WeightsError(
            f"{stored.path}: a state dict of this package that {known}; expected {name or 'a known one'}"
        )
    chosen = fits[0] if name is None else name
    logits = tensors.get("head.logits.weight", torch.empty(0))
    first = next(iter(_rows(chosen)))
    kernel = tensors[next(iter(tensors_of(first, NETWORKS[chosen].conventions).values()))]
    multiplier = first.node.multiplier if isinstance(first.node, SeparableConv) else 0
    configuration = Configuration(
        chosen,
        num_classes=len(logits) if logits.numel() and logits.dim() == 2 else 0,
        in_channels=len(kernel) // multiplier if multiplier else kernel.shape[1],
        aux=bool(NETWORKS[chosen].aux) and any(key.startswith("aux.") for key in tensors),
    )
    prep = Preprocessing(size_px=NETWORKS[chosen].input_size)
    return Layout("a state dict of this package", fits, TORCH, {}, (), prep), configuration


def _rows(name: str) -> list[Row]:
    """The convolutions of a network's body."""
    network = NETWORKS[name]
    return [row for row in analyse(network) if row.path.startswith("body.") and tensors_of(row, network.conventions)]


def _is_body_of(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of the network's body, with kernels of its heights and widths."""
    held = {key for key in tensors if key.startswith("body.") and not key.endswith("num_batches_tracked")}
    for row in _rows(name):
        names = tensors_of(row, NETWORKS[name].conventions)
        if not held.issuperset(names.values()):
            return False
        if isinstance(row.node, Conv | SeparableConv):
            kernel = tensors[names.get("weight") or names["depthwise"]]
            if kernel.shape[2:] != pair(row.node.kernel):
                return False
        held -= set(names.values())
    return not held
