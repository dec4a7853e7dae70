"""The nouns of the Inception family: ten kinds of node and the network that holds them.

A network is data. It is written once, as a tree of frozen dataclasses that reads like the paper's drawing, and every
other ability (building modules, counting, drawing, narrowing, renaming weights) is one function over that tree. There
is no behaviour here and no torch.

A list of nodes is a chain, one after the other; a dict is a chain whose parts have names. A name is the module's name,
its prefix in the state dict, the feature's name and the drawing's label. Input channels are never written: they follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Padding = Literal["same", "valid", "ceil", "after"]
"""`same` keeps the grid at stride 1 (what it means at stride 2 is a convention of the network, see `Conventions`),
`valid` pads nothing, `ceil` pads only after the last row and column, so that a pool covers every input; `after` is
`same` with the odd pixel after, whatever the network's convention."""

V: Padding = "valid"
"""The papers' letter for a convolution or pool without padding."""

CEIL: Padding = "ceil"
AFTER: Padding = "after"

Init = float | Literal["variance scaling", "glorot uniform"]
"""How weights start: a truncated normal of that standard deviation, or one of variance 2 / fan-in, or uniform in
±sqrt(6 / (fan-in + fan-out)). Biases start at 0."""

Kernel = int | tuple[int, int]
"""Height and width in pixels, (1, 7) for the papers' 1×7; a single number is a square."""


@dataclass(frozen=True)
class Conv:
    """A convolution, then batch norm (or a bias where there is none), then ReLU."""

    filters: int
    kernel: Kernel = 1
    stride: int = 1
    padding: Padding = "same"
    norm: bool = True
    """False: a bias in place of batch norm, in a network that otherwise has batch norm."""
    relu: bool = True
    """False: linear."""
    std: float | None = None
    """Standard deviation of the initial weights, where it differs from the network's."""


@dataclass(frozen=True)
class SeparableConv:
    """A depthwise convolution with `multiplier` outputs for each input channel, then 1×1, batch norm and ReLU."""

    filters: int
    kernel: Kernel
    stride: int
    multiplier: int
    padding: Padding = "same"
    norm: bool = True
    """False: a bias in place of batch norm, as in `Conv`."""
    std: float | None = None
    """Of both parts' initial weights, where it differs from the network's."""


@dataclass(frozen=True)
class MaxPool:
    """Maximum over a window."""

    kernel: int
    stride: int = 1
    padding: Padding = "same"


@dataclass(frozen=True)
class AvgPool:
    """Mean over a window; `Conventions.average_counts_padding` says whether padding counts as zeros."""

    kernel: int
    stride: int = 1
    padding: Padding = "same"


@dataclass(frozen=True)
class AdaptiveAvgPool:
    """Mean down to a grid of `grid` × `grid`, whatever the input; 1 is the global average pool."""

    grid: int = 1


@dataclass(frozen=True)
class LocalResponseNorm:
    """Division by (k + alpha/size · sum of squares over `size` neighbouring channels) ** beta."""

    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True)
class Dropout:
    """Zeroes a share `p` of the values in training (the papers' "keep 0.8" is p = 0.2)."""

    p: float


@dataclass(frozen=True)
class Linear:
    """A fully connected layer on the flattened grid. The one named `logits` gives the classes and has no activation."""

    filters: int
    relu: bool = False
    norm: bool = False
    """Batch norm in place of the bias."""
    std: float | None = None


@dataclass(frozen=True, init=False)
class Branches:
    """Chains on the same input, concatenated along channels in the order written."""

    chains: Mapping[str, Chain]

    def __init__(self, **chains: Chain) -> None:
        object.__setattr__(self, "chains", chains)


@dataclass(frozen=True)
class Residual:
    """Input + scale · (body, then a linear 1×1 convolution with bias), then ReLU.

    The closing convolution gives the input's depth, so its filters are no figure of their own.
    """

    body: Branches
    scale: float | None
    """None: unscaled for good; `residual_scale` leaves it alone."""
    relu: bool = True


Leaf = Conv | SeparableConv | MaxPool | AvgPool | AdaptiveAvgPool | LocalResponseNorm | Dropout | Linear
Node = Leaf | Branches | Residual | Sequence["Node"] | Mapping[str, "Node"]
Chain = Sequence[Node] | Mapping[str, Node]


@dataclass(frozen=True)
class Conventions:
    """What the published ports disagree about. No defaults: each network states its own."""

    same: Literal["tensorflow", "symmetric"]
    """`tensorflow` pads a stride-2 grid less before than after; `symmetric` pads kernel // 2 on both sides."""
    average_counts_padding: bool
    """Whether an average pool divides by the whole window at the border (torch's default) or by the pixels in it."""
    batch_norm_eps: float | None
    """None: no batch norm anywhere, convolutions have biases."""
    conv_init: Init
    linear_init: Init


@dataclass(frozen=True)
class Network:
    """One network, whole: what `build`, `analysis` and `draw` read."""

    name: str
    summary: str
    """One line: what this variant is."""
    paper: str
    """Section or figure of the paper, or the release, that it follows."""
    input_size: int
    """Height and width in pixels of the image it was published for."""
    conventions: Conventions
    body: Mapping[str, Node]
    """From image to last grid; each entry is an endpoint."""
    head: Mapping[str, Node]
    """From last grid to `logits`, which is its last entry; without it the features are what the network gives."""
    aux: Mapping[str, Mapping[str, Node]] = field(default_factory=dict)
    """Auxiliary heads by the endpoint each one stands on; the last entry of each is its `logits`."""
    low_resolution: Mapping[int, Mapping[str, Node | None]] = field(default_factory=dict)
    """By input size in pixels: what the stem has there instead (None: nothing)."""
    in_channels: int = 3
