"""Layouts: how published files name the layers of a network, as data.

Layer names are listed in tree order, endpoint by endpoint, and paired with the network's own names (`Row.path`), so
that a missing or extra name is detected. A `Style` says how the tensors of a layer are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from inceptionnet.data.preprocess import Preprocessing

Names = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Style:
    """How a layout names the tensors of a layer `{}`."""

    conv: str
    """A convolution followed by batch norm."""
    plain: str
    """A convolution with a bias, or a linear layer."""
    norm: str
    """Batch norm, unless the layer's entry names it ("layer|norm")."""
    separator: str
    parts: Mapping[str, str]
    """The names of weight, bias, gamma, beta, mean, var, depthwise, pointwise (see `build.tensors_of`)."""
    order: Literal["torch", "tensorflow"]
    """Order of a kernel's axes: (out, in, height, width) or (height, width, in, out)."""

    def tensor(self, entry: str, part: str, *, normed: bool) -> str:
        """The name of a tensor of the layer `entry`; `normed`: whether batch norm follows it."""
        layer, _, norm = entry.partition("|")
        if part in ("gamma", "beta", "mean", "var"):
            owner = norm or self.norm.format(layer)
        else:
            owner = (self.conv if normed and not norm else self.plain).format(layer)
        return f"{owner}{self.separator}{self.parts[part]}"


TORCH_PARTS = {
    "weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var",
}  # fmt: skip
TORCH = Style("{}.conv", "{}", "{}.bn", ".", TORCH_PARTS, "torch")


@dataclass(frozen=True, eq=False)
class Layout:
    """How one family of published files names the tensors of one network."""

    name: str
    networks: Names
    """The networks that it fits; the first reproduces the code that it was published with."""
    style: Style
    body: Mapping[str, Names]
    """Layers by endpoint, including the embedding of the face network."""
    classifier: Names
    """Possible names of the classifier; a file has one of them, or none."""
    preprocessing: Preprocessing
    aux: Mapping[str, Names] = field(default_factory=dict)
    """Layers of the auxiliary heads, by the endpoint that each is attached to; optional in a file."""
    by_classes: Mapping[int, str] = field(default_factory=dict)
    """The network, if the number of classes decides it."""
    bgr_255: bool = False
    """Whether the first convolution takes BGR in 0 to 255 minus a mean, not RGB in [-1, 1]."""
    remark: str = ""
    """What is assumed of every file of this layout, to be said where results are read."""

    def layers(self) -> Iterator[str]:
        """All layers that a file must have."""
        for names in self.body.values():
            for entry in names:
                yield entry.partition("|")[0]


def within(prefix: str, names: str) -> Names:
    """The space-separated names, each with the prefix."""
    return tuple(prefix + name for name in names.split())
