"""Mapping a published file's tensors to a network of this package: recognise the layout, then map every layer.

A layer that the file lacks is an error. Tensors that are not used are reported with the reason, and so is every value
that is computed (a gamma of 1, a bias folded into batch norm's mean).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.model.build import tensors_of
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import Row, analyse
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Conv, Linear, SeparableConv
from inceptionnet.weights.bare import bare
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.layouts import LAYOUTS, Layout
from inceptionnet.weights.layouts.keras import named

BACKGROUND = 1001
"""Classes of an ImageNet classifier whose class 0 is the background."""


@dataclass(frozen=True)
class Translation:
    """A published file's tensors under this package's names."""

    layout: Layout
    configuration: Configuration
    tensors: Mapping[str, Tensor]
    """By this package's names; views of the file's tensors except where values are computed."""
    background: bool
    """Whether the file's class 0 is ImageNet's background, which was removed."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Tensors of the file that are not used, each with the reason."""
    initialised: Mapping[str, str] = field(default_factory=dict)
    """Tensors that the file has no values for, each with how it was computed."""
    changed: tuple[str, ...] = ()
    """One line for each value that was computed or derived."""


def translate(stored: Stored, *, name: str | None = None, keep_background: bool = False) -> Translation:
    """Map the file's tensors to the names of the network that they belong to.

    Args:
        name: one of the networks that the layout fits; default: the one that reproduces the publisher's own code.
        keep_background: keep all of 1001 classes.

    Raises:
        WeightsError: an unknown layout, missing layers, or a network that the layout does not fit.
    """
    if any(tensor.startswith("body.") for tensor in stored.tensors):
        layout, configuration = bare(stored, name)
        derived = () if configuration.width == 1 else (f"width {configuration.width:g}, from the tensors' shapes",)
        return Translation(
            layout, configuration, stored.tensors, background=False, dropped=stored.dropped, changed=derived
        )
    tensors = named(stored.tensors) if stored.format == "Keras" else dict(stored.tensors)
    layout = _recognised(tensors, stored)
    return _Translator(stored, tensors, layout, name, keep_background).run()


def _recognised(tensors: Mapping[str, Tensor], stored: Stored) -> Layout:
    """Of the layouts whose layers are all in the file, the one with the most layers."""
    owners = {name[: cut.start()] for name in tensors for cut in re.finditer(r"[./]", name)}
    missing = {layout: [name for name in layout.layers() if not _has(name, layout, owners)] for layout in LAYOUTS}
    whole = [layout for layout, names in missing.items() if not names]
    if whole:
        return max(whole, key=lambda layout: len(list(layout.layers())))
    nearest = min(missing, key=lambda layout: len(missing[layout]) / len(list(layout.layers())))
    if len(missing[nearest]) > len(list(nearest.layers())) / 2:
        some = ", ".join(sorted(stored.tensors)[:3])
        raise WeightsError(
            f"{stored.path}: {len(stored.tensors)} tensors ({some or 'none'} …) in an unknown layout; "
            f"known: {listed(layout.name for layout in LAYOUTS)}"
        )
    raise WeightsError(f"{stored.path}: {nearest.name}, but without {listed(missing[nearest])}; get the complete file")


def _has(layer: str, layout: Layout, owners: set[str]) -> bool:
    return layer in owners or layout.style.conv.format(layer) in owners


class _Translator:
    """The state of one translation: tensors used, missing and computed so far."""

    def __init__(
        self, stored: Stored, tensors: Mapping[str, Tensor], layout: Layout, name: str | None, keep_background: bool
    ) -> None:
        self.stored, self.tensors, self.layout, self.style = stored, tensors, layout, layout.style
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.initialised: dict[str, str] = {}
        self.folded = 0
        self.classifier = next((n for n in layout.classifier if self._weight_of(n) in tensors), None)
        classes = 0 if self.classifier is None else self._classes_of(self.classifier)
        self.background = classes == BACKGROUND and not keep_background
        network = self._network(name, classes)
        self.configuration = Configuration(
            network,
            num_classes=classes - self.background,
            in_channels=self._in_channels(),
            embedding=self._embedding(),
            aux=bool(layout.aux and NETWORKS[network].aux)
            and classes > 0
            and all(self._weight_of(entry, conv=True) in tensors for names in layout.aux.values() for entry in names),
        )

    def run(self) -> Translation:
        """Translate every layer of the network."""
        network = configure(self.configuration)
        entries = self._entries()
        ours: dict[str, Tensor] = {}
        for row in analyse(network):
            if isinstance(row.node, Conv | SeparableConv | Linear):
                where, _, rest = row.path.partition(".")
                endpoint = rest.partition(".")[0]
                entry = next(entries[f"aux.{endpoint}" if where == "aux" else endpoint])
                ours |= self._layer(entry, row, tensors_of(row, network.conventions))
        if self.missing:
            raise WeightsError(
                f"{self.stored.path}: {self.layout.name}, but without {listed(self.missing)}; get the complete file"
            )
        changed = [f"{self.folded} convolutions' biases folded into the batch norm's mean"] if self.folded else []
        if self.layout.bgr_255:
            first = next(iter(ours))
            if ours[first].dim() == 4:  # else its shape will be refused
                ours[first] = ours[first].flip(1) * 127.5
            changed.append("first convolution: channels from BGR to RGB, × 127.5, so that it takes RGB in [-1, 1]")
        if self.background:
            changed.append(f"class 0 of {BACKGROUND}, the background, removed")
        return Translation(
            self.layout,
            self.configuration,
            ours,
            self.background,
            {**self.stored.dropped, **self._left()},
            self.initialised,
            tuple(changed),
        )

    def _entries(self) -> dict[str, Iterator[str]]:
        """By endpoint, the names of its layers, each used once."""
        names = {**self.layout.body, **{f"aux.{on}": names for on, names in self.layout.aux.items()}}
        if self.classifier is not None:
            names["logits"] = (self.classifier,)
        return {endpoint: iter(entries) for endpoint, entries in names.items()}

    def _layer(self, entry: str, row: Row, names: Mapping[str, str]) -> dict[str, Tensor]:
        """One layer's tensors under this package's names."""
        normed = "gamma" in names
        found: dict[str, Tensor] = {}
        for part, ours in names.items():
            theirs = self.style.tensor(entry, part, normed=normed)
            if theirs in self.tensors:
                self.used.add(theirs)
                found[ours] = self._as_torch(self.tensors[theirs], part, row)
            elif part == "gamma" and self.style.order == "tensorflow":
                self.initialised[ours] = "computed: gamma is 1, which the file omits"
            else:
                self.missing.append(theirs)
        bias = self.style.tensor(entry, "bias", normed=normed)
        if normed and bias in self.tensors and names["mean"] in found:
            # gamma · (x + bias - mean) / std + beta: the bias only shifts the mean.
            self.used.add(bias)
            mean, shift = found[names["mean"]], self.tensors[bias].flatten()
            if mean.shape != shift.shape:
                raise WeightsError(f"{self.stored.path}: {bias} has {len(shift)} values for {len(mean)} channels")
            found[names["mean"]] = mean - shift
            self.folded += 1
        if "beta" in names and names["beta"] in found and names["gamma"] not in found:
            found[names["gamma"]] = torch.ones_like(found[names["beta"]])
        return found

    def _as_torch(self, tensor: Tensor, part: str, row: Row) -> Tensor:
        """The tensor with its axes in torch's order, without the background class."""
        if part not in ("weight", "depthwise", "pointwise"):
            tensor = tensor.flatten()  # Caffe kept a vector as a matrix of one row
        if self.style.order == "tensorflow":
            if tensor.dim() == 4:  # height, width, in, out; of a depthwise kernel in, multiplier
                depthwise = part == "depthwise"
                tensor = tensor.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else tensor.permute(3, 2, 0, 1)
            elif tensor.dim() == 2:
                tensor = tensor.t()
        if isinstance(row.node, Linear) and tensor.dim() == 4:
            tensor = tensor.flatten(1)
        return tensor[1:] if self.background and row.path.endswith(".logits") else tensor

    def _left(self) -> dict[str, str]:
        """The file's tensors that are not used, each with the reason."""
        left = self.tensors.keys() - self.used
        reasons = {name: self._reason(name) for name in sorted(left)}
        return {name: reason for name, reason in reasons.items() if reason}

    def _reason(self, name: str) -> str:
        if name.endswith("num_batches_tracked"):
            return ""  # a counter that affects no output
        if any(name.startswith(entry) for names in self.layout.aux.values() for entry in names):
            has = NETWORKS[self.configuration.name].aux
            return "incomplete auxiliary head" if has else "auxiliary head, which the network does not have"
        return f"not part of {self.configuration.name}"

    def _weight_of(self, entry: str, *, conv: bool = False) -> str:
        """The name of a layer's weight; `conv`: of a convolution with batch norm, if the file has one."""
        normed = self.style.tensor(entry, "weight", normed=True)
        return normed if conv and normed in self.tensors else self.style.tensor(entry, "weight", normed=False)

    def _classes_of(self, classifier: str) -> int:
        name = self._weight_of(classifier)
        shape = self.tensors[name].shape
        if len(shape) not in (2, 4) or not shape.numel():
            raise WeightsError(
                f"{self.stored.path}: expected a classifier's matrix, got {name} of shape {tuple(shape)}"
            )
        return int(shape[-1] if self.style.order == "tensorflow" else shape[0])

    def _embedding(self) -> int | None:
        """The length of the face network's embedding, None if it is the published one."""
        for entry in self.layout.body.get("embedding", ()):
            kernel = self.tensors.get(self.style.tensor(entry, "weight", normed=False))
            kernel = self.tensors.get(self.style.tensor(entry, "weight", normed=True), kernel)
            if kernel is not None and kernel.dim() == 2:
                length = int(kernel.shape[1 if self.style.order == "tensorflow" else 0])
                return None if length == 512 else length
        return None

    def _in_channels(self) -> int:
        first = next(self.layout.layers())
        for part, normed in (("weight", True), ("weight", False), ("depthwise", False)):
            if part in self.style.parts and (name := self.style.tensor(first, part, normed=normed)) in self.tensors:
                shape = self.tensors[name].shape
                if len(shape) == 4 and shape.numel():
                    return int(shape[2] if self.style.order == "tensorflow" else shape[1])
        return 3

    def _network(self, asked: str | None, classes: int) -> str:
        """The network asked for, if the layout fits it; by default the one that reproduces the publisher's code."""
        fits = self.layout.networks
        if asked is None:
            return self.layout.by_classes.get(classes, fits[0])
        if asked not in fits:
            raise WeightsError(
                f"{self.stored.path}: {self.layout.name}, which fits {listed(fits, ordered=True, last='or')}, "
                f"not {asked}; omit the name or change it"
            )
        return asked
