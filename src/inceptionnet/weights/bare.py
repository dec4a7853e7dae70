"""State dicts of this package's networks saved by torch alone: network, width, classes and channels from the shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil, inf

import torch
from torch import Tensor

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import WeightsError, listed
from inceptionnet.model.build import tensors_of
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import Row, analyse, pair
from inceptionnet.nets.arguments import with_width
from inceptionnet.nets.edits import Configuration
from inceptionnet.nets.spec import Conv, Linear, Network, SeparableConv
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.layouts.layout import TORCH, Layout

BARE = "a state dict of this package"
"""The layout's name."""
STEPS = (1, 2, 4, 8, 10, 20, 50, 100, 1000, 10_000, 100_000)
"""A width is the first multiple of 1, 1/2, 1/4, … that gives the shapes, so that people recognise it."""


def bare_tensors(stored: Stored) -> Stored | None:
    """The file without the prefix of this package's own names, if it has such names; else None."""
    prefixes = {found[1] for name in stored.tensors if (found := re.match(r"((?:.*\.)?)body\.[a-z0-9_]+\.", name))}
    if len(prefixes) != 1:
        return None
    prefix = prefixes.pop()
    own = {name.removeprefix(prefix): tensor for name, tensor in stored.tensors.items() if name.startswith(prefix)}
    outside = dict.fromkeys((name for name in stored.tensors if not name.startswith(prefix)), f"not under {prefix}")
    return replace(stored, tensors=own, dropped={**stored.dropped, **outside})


def bare(stored: Stored, name: str | None) -> tuple[Layout, Configuration]:
    """The configuration of a state dict with this package's own names: the network `name`, or the first that fits.

    Raises:
        WeightsError: it fits no network at any width, or not the network of that name.
    """
    tensors = stored.tensors
    named = [other for other in NETWORKS if _is_body_of(other, tensors)]
    widths = {other: width for other in named if (width := _width(NETWORKS[other], tensors)) is not None}
    fits = tuple(sorted(widths, key=lambda other: widths[other] != 1))  # stable: otherwise in the order of NETWORKS
    if named and not (widths if name is None else name in widths or name not in named):
        closest = named[0] if name is None else name
        raise WeightsError(
            f"{stored.path}: has the tensor names of {closest}, but no width multiplier gives its numbers of filters: "
            f"{_misfits(NETWORKS[closest], tensors)}; save it from one network, with save_weights"
        )
    if not fits or (name is not None and name not in fits):
        known = f"fits {listed(fits, last='or')}" if fits else "fits no network"
        raise WeightsError(
            f"{stored.path}: a state dict of this package that {known}; expected {name or 'a known one'}"
        )
    chosen = fits[0] if name is None else name
    if any(key.startswith("head.hidden.") for key in tensors):
        raise WeightsError(
            f"{stored.path}: a state dict of this package with hidden layers in the head, whose activations it does "
            "not tell; save it with save_weights"
        )
    logits = tensors.get("head.logits.weight", torch.empty(0))
    first = _rows(NETWORKS[chosen])[0]
    kernel = tensors[next(iter(tensors_of(first, NETWORKS[chosen].conventions).values()))]
    multiplier = first.node.multiplier if isinstance(first.node, SeparableConv) else 0
    configuration = Configuration(
        chosen,
        num_classes=len(logits) if logits.numel() and logits.dim() == 2 else 0,
        in_channels=len(kernel) // multiplier if multiplier else kernel.shape[1],
        width=widths[chosen],
        aux=bool(NETWORKS[chosen].aux) and any(key.startswith("aux.") for key in tensors),
    )
    prep = Preprocessing(size_px=NETWORKS[chosen].input_size)
    return Layout(BARE, fits, TORCH, {}, (), prep), configuration


def _rows(network: Network) -> list[Row]:
    """The convolutions of a network's body."""
    return [row for row in analyse(network) if row.path.startswith("body.") and tensors_of(row, network.conventions)]


def _is_body_of(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensor names of the network's body, with kernels of its heights and widths."""
    held = {key for key in tensors if key.startswith("body.") and not key.endswith("num_batches_tracked")}
    for row in _rows(NETWORKS[name]):
        names = tensors_of(row, NETWORKS[name].conventions)
        if not held.issuperset(names.values()):
            return False
        if isinstance(row.node, Conv | SeparableConv):
            kernel = tensors[names.get("weight") or names["depthwise"]]
            if kernel.shape[2:] != pair(row.node.kernel):
                return False
        held -= set(names.values())
    return not held


def _width(network: Network, tensors: Mapping[str, Tensor]) -> float | None:
    """The width multiplier that gives all numbers of filters in the file: 1, else the roundest; None if there is none.

    Numbers of filters are multiples of 8, so that a range of widths gives the same network.
    """
    found = dict(_filters(network, tensors))
    if all(published == held for published, held in found.values()):
        return 1.0
    low, high = 0.0, inf
    for published, held in found.values():  # held is published · width, rounded to a multiple of 8, and at least 8
        low = max(low, (held - 4) / published if held > 8 else 0.0)
        high = min(high, (held + 4) / published)
    for step in STEPS:
        width = max(1, ceil(low * step)) / step
        if width >= high:
            continue
        scaled = dict(_filters(with_width(network, width), tensors))
        if all(given == held for given, held in scaled.values()):
            return width
    return None


def _misfits(network: Network, tensors: Mapping[str, Tensor]) -> str:
    """The layers that disagree with the width that most of them agree on."""
    found = dict(_filters(network, tensors))

    def misfits(width: float) -> list[str]:
        scaled = _filters(with_width(network, width), tensors)
        return [f"{path} has {held}, not {given}" for path, (given, held) in scaled if given != held]

    ratios = {held / published for published, held in found.values() if held}
    width = min(sorted(ratios), key=lambda ratio: len(misfits(ratio)), default=1.0)
    return f"at {width:.4g}, {listed(misfits(width))}"


def _filters(network: Network, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[int, int]]]:
    """By path, filters of the layers that a width scales: the network's, and the file's; of heads, those it has."""
    for row in analyse(network):
        node = row.node
        if isinstance(node, Conv | SeparableConv | Linear) and row.name not in ("logits", "closing"):
            names = tensors_of(row, network.conventions)
            kernel = tensors.get(names.get("weight") or names["pointwise"])
            if kernel is not None:
                yield row.path, (node.filters, len(kernel) if kernel.dim() else 0)
