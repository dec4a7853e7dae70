"""Recognising the layout of a file by its layers, wherever in the file they are.

The layers may have any prefix (`module.`, `backbone.model.`): it is what stands before the first layer. They may have
other names (layouts/positions.py), and the file may hold several copies of the network, of which one is averaged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.formats.wrapped import AVERAGED
from inceptionnet.weights.layouts import LAYOUTS, Layout
from inceptionnet.weights.layouts.positions import renamings
from inceptionnet.weights.strangers import other_network, reparametrised


@dataclass(frozen=True, eq=False)
class Found:
    """The network in a file: which layout, under which prefix and names."""

    layout: Layout
    prefix: str
    tensors: Mapping[str, Tensor]
    """Those under the prefix, by the layout's names."""
    origin: Mapping[str, str]
    """By the layout's names, the file's."""
    renamed: str = ""
    """What kind of other names the file uses, in words."""
    last: str | None = None
    """The endpoint that the file's network ends with, if it is cut."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Tensors of other copies of the network, with the reason that they are not used."""
    notes: tuple[str, ...] = ()

    @cached_property
    def missing(self) -> list[str]:
        """The layout's layers that are not there."""
        owners = {name[: cut.start()] for name in self.tensors for cut in re.finditer(r"[./]", name)}
        style = self.layout.style
        return [name for name in self.layout.layers() if name not in owners and style.conv.format(name) not in owners]

    @property
    def layers(self) -> int:
        """How many layers the layout has."""
        return sum(1 for _ in self.layout.layers())


def recognise(tensors: Mapping[str, Tensor], stored: Stored) -> Found:
    """The layout whose layers are all in the file, the one with the most layers.

    Raises:
        WeightsError: an unknown layout, missing layers, or several networks of which none is averaged.
    """
    found = [one for layout in LAYOUTS for one in _places(layout, tensors)]
    whole = [one for one in found if not one.missing]
    if not whole:
        whole = [cut for one in found if (cut := _cut(one)) is not None]
    if whole:
        most = max(one.layers for one in whole)
        return _one_of([one for one in whole if one.layers == most], tensors, stored)
    nearest = min(found, key=lambda one: len(one.missing) / one.layers, default=None)
    if nearest is None or len(nearest.missing) > nearest.layers / 2:
        raise WeightsError(f"{stored.path}: {other_network(tensors, LAYOUTS)}")
    if why := reparametrised(nearest.tensors, nearest.missing):
        raise WeightsError(f"{stored.path}: {nearest.layout.name}, but {why}")
    raise WeightsError(
        f"{stored.path}: {nearest.layout.name}, but without {listed(nearest.missing)}; get the complete file"
    )


def _places(layout: Layout, tensors: Mapping[str, Tensor]) -> list[Found]:
    """Every prefix under which the file has the layout's first layer, by its own names or by other ones."""
    found = [_under(layout, prefix, tensors, {}, "") for prefix in _prefixes(_first(layout), layout, tensors)]
    if any(not one.missing for one in found) or layout.style.order != "torch":
        return found
    for words, names in renamings(layout):
        first = _first(layout)
        for theirs, ours in names.items():
            if first.startswith(f"{ours}."):
                there = theirs + first.removeprefix(ours)
                prefixes = _prefixes(there, layout, tensors)
                found += [_under(layout, prefix, tensors, names, words) for prefix in prefixes]
    return found


def _first(layout: Layout) -> str:
    """The layout's first layer, as the owner of its weight."""
    style = layout.style
    part = "weight" if "depthwise" not in style.parts else "depthwise"
    entry = next(layout.layers())
    return style.tensor(entry, part, normed=True).rpartition(style.separator)[0]


def _prefixes(owner: str, layout: Layout, tensors: Mapping[str, Tensor]) -> list[str]:
    """What stands before the names of the tensors of this layer."""
    separator = layout.style.separator
    found: dict[str, None] = {}
    for name in tensors:
        before, _, _ = name.rpartition(separator)
        if before == owner or before.endswith(f"{separator}{owner}"):
            found[before[: len(before) - len(owner)]] = None
    return list(found)


def _under(layout: Layout, prefix: str, tensors: Mapping[str, Tensor], renamed: Mapping[str, str], words: str) -> Found:
    inside: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            ours = name[len(prefix) :]
            if renamed:
                head = next((h for h in _heads(ours) if h in renamed), None)
                ours = renamed[head] + ours[len(head) :] if head is not None else ours
            inside[ours], origin[ours] = tensor, name
    return Found(layout, prefix, inside, origin, words)


def _heads(name: str) -> list[str]:
    """The name's first one, two and three parts."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(min(3, len(parts)))]


def _cut(found: Found) -> Found | None:
    """The network cut behind an endpoint, if only the layers behind it are missing, with the classifier."""
    missing = set(found.missing)
    ends = list(found.layout.body)
    gone = [end for end in ends if {entry.partition("|")[0] for entry in found.layout.body[end]} & missing]
    if not gone or len(missing) == found.layers or found.layout.style.order != "torch":
        return None
    at = ends.index(gone[0])
    rest = [entry.partition("|")[0] for end in ends[at:] for entry in found.layout.body[end]]
    heads = (*found.layout.classifier, *rest)
    if at < 3 or any(name.startswith(f"{entry}.") for name in found.tensors for entry in heads):
        return None
    return replace(found, last=ends[at - 1])


def _one_of(whole: list[Found], tensors: Mapping[str, Tensor], stored: Stored) -> Found:
    """Of several copies of the network the averaged one; and what is said of the choice."""
    whole = list({one.prefix: one for one in reversed(whole)}.values())[::-1]  # by its own names before other ones
    averaged = [one for one in whole if AVERAGED.search(one.prefix)]
    chosen = averaged if averaged and len(whole) > 1 else whole
    if len(chosen) > 1:
        places = listed((one.prefix.rstrip("./") or "the top level" for one in chosen), last="and")
        raise WeightsError(
            f"{stored.path}: {len(chosen)} networks of {chosen[0].layout.name}, {places}; save the state dict of the "
            "one that is meant"
        )
    found = chosen[0]
    kept = set(found.origin.values()) if found.prefix else set(tensors)
    copies: dict[str, str] = {}
    for one in whole:
        if one is not found:
            why = "averaged weights used instead" if averaged else "another copy of the network"
            inner = [name for name in one.origin.values() if not (found.prefix and name in kept)]
            copies |= dict.fromkeys(inner, why)
    notes = [f"prefix {found.prefix} removed"] if found.prefix else []
    if averaged and len(whole) > 1:
        notes.append(f"the averaged weights, {found.prefix}, used")
    if found.renamed:
        notes.append(f"layers named by {found.renamed}")
    if found.last:
        notes.append(f"the file has no layers behind {found.last}: read as a backbone that ends there")
    inside = {ours: t for ours, t in found.tensors.items() if found.origin[ours] not in copies}
    return replace(found, tensors=inside, copies=copies, notes=tuple(notes))
