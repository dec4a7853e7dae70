"""What a layout is: how a published file names the layers of a network, as data.

A layer's names stand in the order of our tree, endpoint by endpoint, so that one list pairs them with the network's own
(`Row.path`), and a missing or superfluous name cannot pass. How a layer's tensors are called is a `Style`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from inceptionnet.data.preprocess import Preprocessing

Names = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Style:
    """How a layout calls the tensors of a layer `{}`."""

    conv: str
    """A convolution that batch norm follows."""
    plain: str
    """A convolution with a bias, or a linear layer."""
    norm: str
    """Batch norm, where the layer's entry does not name it ("layer|norm")."""
    separator: str
    parts: Mapping[str, str]
    """What `build.tensors_of` calls weight, bias, gamma, beta, mean, var, depthwise, pointwise."""
    order: Literal["torch", "tensorflow"]
    """Of a kernel's axes: (out, in, height, width) or (height, width, in, out)."""

    def tensor(self, entry: str, part: str, *, normed: bool) -> str:
        """The name of a tensor of the layer with this entry; `normed`: whether batch norm follows it."""
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
    """What it can fill; the first gives the numbers of the code that it was published with."""
    style: Style
    body: Mapping[str, Names]
    """By endpoint, the layers in it; of the face network also the embedding."""
    classifier: Names
    """Names that the last layer goes by; a file has one of them, or none."""
    preprocessing: Preprocessing
    aux: Mapping[str, Names] = field(default_factory=dict)
    """By endpoint, the layers of the auxiliary head that stands on it; a file may lack them."""
    by_classes: Mapping[int, str] = field(default_factory=dict)
    """The network, where the number of classes decides it."""
    bgr_255: bool = False
    """The first convolution takes blue, green, red of 0 to 255 less a mean, not red, green, blue of [-1, 1]."""

    def layers(self) -> Iterator[str]:
        """Every layer that a file must have."""
        for names in self.body.values():
            for entry in names:
                yield entry.partition("|")[0]


def within(prefix: str, names: str) -> Names:
    """The names, which spaces divide, each behind the prefix."""
    return tuple(prefix + name for name in names.split())
