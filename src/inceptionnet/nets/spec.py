"""The building blocks of the Inception family: ten kinds of node, three more for heads that people put on it, and the
network that contains them.

A network is data: a tree of frozen dataclasses that reads like the figure in the paper. Everything else (building
modules, counting, drawing, width scaling, mapping weights) is a function of that tree. No behaviour and no torch here.

A list of nodes is a sequential chain; a dict is a chain with named parts. A name is the module name, the prefix in the
state dict, the name of the feature and the label in the drawing. Input channels are inferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Padding = Literal["same", "valid", "ceil", "after"]
"""`same` keeps the grid size at stride 1 (at stride 2, see `Conventions`), `valid` is no padding, `ceil` pads only
after the last row and column, so that a pool covers the whole input, and `after` is `same` with the odd pixel of
padding at the end, whatever the network's convention."""

V: Padding = "valid"
"""The papers' letter for a convolution or pool without padding."""

CEIL: Padding = "ceil"
AFTER: Padding = "after"

Init = float | Literal["variance scaling", "glorot uniform"]
"""Initialisation of weights: a truncated normal of that std, or of variance 2 / fan-in, or uniform in
±sqrt(6 / (fan-in + fan-out)). Biases are initialised to 0."""

Function = Literal[
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus"
]
"""Activation functions of hidden layers; `gelu` by the error function, `gelu_tanh` its approximation."""

PoolKind = Literal["max", "avgmax", "catavgmax"]
"""Global pools other than the average, by timm's names."""

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
    """Std of the initial weights, if it differs from the network's."""


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
    """Std of both parts' initial weights, if it differs from the network's."""


@dataclass(frozen=True)
class MaxPool:
    """Max pooling."""

    kernel: int
    stride: int = 1
    padding: Padding = "same"


@dataclass(frozen=True)
class AvgPool:
    """Average pooling; `Conventions.average_counts_padding` says whether padding is counted as zeros."""

    kernel: int
    stride: int = 1
    padding: Padding = "same"


@dataclass(frozen=True)
class AdaptiveAvgPool:
    """Average pooling to a grid of `grid` × `grid` for any input size; 1 is global average pooling."""

    grid: int = 1


@dataclass(frozen=True)
class GlobalPool:
    """Global pooling other than the average: the maximum, the mean of both, or both concatenated (timm's names)."""

    kind: PoolKind


@dataclass(frozen=True)
class LocalResponseNorm:
    """Division by (k + alpha/size · sum of squares over `size` neighbouring channels) ** beta."""

    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True)
class Dropout:
    """Dropout with probability `p` (the papers' "keep 0.8" is p = 0.2)."""

    p: float


@dataclass(frozen=True)
class Linear:
    """A fully connected layer on the flattened grid. The one named `logits` is the classifier and has no activation."""

    filters: int
    relu: bool = False
    norm: bool = False
    """Batch norm in place of the bias."""
    std: float | None = None
    bias: bool = True


@dataclass(frozen=True)
class BatchNorm:
    """Batch norm of a vector, where it does not belong to the layer before it."""

    eps: float


@dataclass(frozen=True)
class Activation:
    """An activation function that stands alone; `slope` is that of leaky_relu, below 0."""

    function: Function
    slope: float | None = None


@dataclass(frozen=True, init=False)
class Branches:
    """Parallel chains on the same input, concatenated along channels in order."""

    chains: Mapping[str, Chain]

    def __init__(self, **chains: Chain) -> None:
        object.__setattr__(self, "chains", chains)


@dataclass(frozen=True)
class Residual:
    """Input + scale · (body, then a linear 1×1 convolution with bias), then ReLU.

    The closing convolution has as many filters as the input has channels, so that number is not stated.
    """

    body: Branches
    scale: float | None
    """None: unscaled; `residual_scale` does not change it."""
    relu: bool = True


Hidden = Linear | BatchNorm | Activation | Dropout
"""What a head may have between its pool and its logits."""

Leaf = (
    Conv | SeparableConv | MaxPool | AvgPool | AdaptiveAvgPool | GlobalPool | LocalResponseNorm | Dropout | Linear
    | BatchNorm | Activation
)  # fmt: skip
Node = Leaf | Branches | Residual | Sequence["Node"] | Mapping[str, "Node"]
Chain = Sequence[Node] | Mapping[str, Node]


@dataclass(frozen=True)
class Conventions:
    """Details on which the published ports disagree. No defaults: each network states its own."""

    same: Literal["tensorflow", "symmetric"]
    """Padding at stride 2: `tensorflow` pads less before than after, `symmetric` pads kernel // 2 on both sides."""
    average_counts_padding: bool
    """Whether average pools divide by the full window size at the border (torch's default) or by the pixels inside."""
    batch_norm_eps: float | None
    """None: no batch norm, convolutions have biases."""
    conv_init: Init
    linear_init: Init


@dataclass(frozen=True)
class Network:
    """A complete network, the input of `build`, `analysis` and `draw`."""

    name: str
    summary: str
    """A one-line description of the variant."""
    paper: str
    """The section or figure of the paper, or the release, that it implements."""
    input_size: int
    """Image size (height and width), px, that it was published for."""
    conventions: Conventions
    body: Mapping[str, Node]
    """From the image to the last grid; each entry is an endpoint."""
    head: Mapping[str, Node]
    """From the last grid to `logits`, the last entry; without it the network outputs its features."""
    aux: Mapping[str, Mapping[str, Node]] = field(default_factory=dict)
    """Auxiliary heads, by the endpoint that each is attached to; the last entry of each is its `logits`."""
    low_resolution: Mapping[int, Mapping[str, Node | None]] = field(default_factory=dict)
    """Changes to the stem by image size, px: replacement by endpoint (None: removed)."""
    in_channels: int = 3
    activation: Literal["softmax", "sigmoid"] = "softmax"
    """What makes probabilities of the logits: softmax over the classes, or sigmoid of each by itself (Keras's
    `classifier_activation`). A single logit with sigmoid is the second of two classes against the first."""
