"""The layers of a published file by the names of its layout: what their shapes say, and their tensors as torch's.

A layer's tensors are brought into torch's order of axes and under this package's names. Every value that is computed (a
gamma of 1, a bias folded into batch norm's mean) is noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.model.build import tensors_of
from inceptionnet.nets.analysis import Row
from inceptionnet.nets.arguments import other_embedding
from inceptionnet.nets.spec import Conv, Linear, Network, SeparableConv
from inceptionnet.weights.recognise import Found
from inceptionnet.weights.strangers import reparametrised


class LayoutLayers:
    """The layers that a layout names, of the file at `path`."""

    def __init__(self, path: Path, found: Found) -> None:
        self._path, self._found, self._tensors = path, found, found.tensors
        self._layout, self._style = found.layout, found.layout.style
        self.classifier: str | None = next(
            (n for n in self._layout.classifier if self.weight_of(n) in self._tensors), None
        )
        self.used: set[str] = set()
        """The tensors that were taken."""
        self.at: dict[str, tuple[str, str]] = {}
        """The file's paths of the convolution and the batch norm of each layer of the body, by this package's path."""
        self.initialised: dict[str, str] = {}
        """Tensors that the file omits, each with how it was computed."""
        self.folded: int = 0
        """Number of biases folded into batch norm's mean."""
        self._missing: list[str] = []
        names = {**self._layout.body, **{f"aux.{on}": names for on, names in self._layout.aux.items()}}
        if self.classifier is not None:
            names["logits"] = (self.classifier,)
        self._entries = {endpoint: iter(entries) for endpoint, entries in names.items()}  # each is taken once

    def take(self, rows: Iterable[Row], network: Network, *, background: bool = False) -> dict[str, Tensor]:
        """The tensors of these layers, which are next of their endpoints, under this package's names.

        Args:
            background: leave out class 0 of the logits.
        """
        taken: dict[str, Tensor] = {}
        for row in rows:
            if isinstance(row.node, Conv | SeparableConv | Linear):
                where, _, rest = row.path.partition(".")
                endpoint = rest.partition(".")[0]
                entry = next(self._entries[f"aux.{endpoint}" if where == "aux" else endpoint])
                names = tensors_of(row, network.conventions)
                if where == "body":
                    self.at[row.path] = self._modules_of(entry, "gamma" in names)
                taken |= self._layer(entry, row, names, background)
        return taken

    def check_complete(self) -> None:
        """Raises: WeightsError: tensors of the layers that were taken are missing."""
        if not self._missing:
            return
        if why := reparametrised(self._tensors, [name.rpartition(".")[0] for name in self._missing]):
            raise WeightsError(f"{self._path}: {self._layout.name}, but {why}")
        raise WeightsError(
            f"{self._path}: {self._layout.name}, but without {listed(self._missing)}; get the complete file"
        )

    def is_aux(self, name: str) -> bool:
        """Whether a tensor is of an auxiliary head."""
        mark = self._style.separator
        return any(name.startswith(entry + mark) for names in self._layout.aux.values() for entry in names)

    def weight_of(self, entry: str, *, conv: bool = False) -> str:
        """The name of a layer's weight; `conv`: of a convolution with batch norm, if the file has one."""
        normed = self._style.tensor(entry, "weight", normed=True)
        return normed if conv and normed in self._tensors else self._style.tensor(entry, "weight", normed=False)

    def classes_of(self, classifier: str) -> int:
        """The number of logits of a layer. Raises: WeightsError: it has no matrix."""
        name = self.weight_of(classifier)
        shape = self._tensors[name].shape
        if len(shape) not in (2, 4) or not shape.numel():
            raise WeightsError(f"{self._path}: expected a classifier's matrix, got {name} of shape {tuple(shape)}")
        return int(shape[-1] if self._style.order == "tensorflow" else shape[0])

    def embedding(self) -> int | None:
        """The length of the face network's embedding, None if it is the published one."""
        for entry in self._layout.body.get("embedding", ()):
            kernel = self._tensors.get(self.weight_of(entry, conv=True))
            if kernel is not None and kernel.dim() == 2:
                length = int(kernel.shape[1 if self._style.order == "tensorflow" else 0])
                return other_embedding(self._layout.networks[0], length)
        return None

    def in_channels(self) -> int:
        """The channels that the first layer takes; 3 if its kernel does not tell."""
        first = next(self._layout.layers())
        for part, normed in (("weight", True), ("weight", False), ("depthwise", False)):
            if part in self._style.parts and (name := self._style.tensor(first, part, normed=normed)) in self._tensors:
                shape = self._tensors[name].shape
                if len(shape) == 4 and shape.numel():
                    return int(shape[2] if self._style.order == "tensorflow" else shape[1])
        return 3

    def _modules_of(self, entry: str, normed: bool) -> tuple[str, str]:
        """The file's paths of a layer's convolution and batch norm."""
        names = [self._style.tensor(entry, part, normed=normed) for part in ("weight", "mean" if normed else "bias")]
        convolution, norm = (self._found.origin.get(name, "").rpartition(".")[0] for name in names)
        return convolution, norm if normed else ""

    def _layer(self, entry: str, row: Row, names: Mapping[str, str], background: bool) -> dict[str, Tensor]:
        """One layer's tensors under this package's names."""
        normed = "gamma" in names
        found: dict[str, Tensor] = {}
        for part, ours in names.items():
            theirs = self._style.tensor(entry, part, normed=normed)
            if theirs in self._tensors:
                self.used.add(theirs)
                found[ours] = self._as_torch(self._tensors[theirs], part, row, background)
            elif part == "gamma" and self._style.order == "tensorflow":
                self.initialised[ours] = "computed: gamma is 1, which the file omits"
            else:
                self._missing.append(theirs)
        bias = self._style.tensor(entry, "bias", normed=normed)
        if normed and bias in self._tensors and names["mean"] in found:
            # gamma · (x + bias - mean) / std + beta: the bias only shifts the mean.
            self.used.add(bias)
            mean, shift = found[names["mean"]], self._tensors[bias].flatten()
            if mean.shape != shift.shape:
                raise WeightsError(f"{self._path}: {bias} has {len(shift)} values for {len(mean)} channels")
            found[names["mean"]] = mean - shift
            self.folded += 1
        if "beta" in names and names["beta"] in found and names["gamma"] not in found:
            found[names["gamma"]] = torch.ones_like(found[names["beta"]])
        return found

    def _as_torch(self, tensor: Tensor, part: str, row: Row, background: bool) -> Tensor:
        """The tensor with its axes in torch's order, without the background class."""
        if part not in ("weight", "depthwise", "pointwise"):
            tensor = tensor.flatten()  # Caffe kept a vector as a matrix of one row
        if self._style.order == "tensorflow":
            if tensor.dim() == 4:  # height, width, in, out; of a depthwise kernel in, multiplier
                depthwise = part == "depthwise"
                tensor = tensor.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else tensor.permute(3, 2, 0, 1)
            elif tensor.dim() == 2:
                tensor = tensor.t()
        if isinstance(row.node, Linear) and tensor.dim() == 4:
            tensor = tensor.flatten(1)
        return tensor[1:] if background and row.path.endswith(".logits") else tensor
