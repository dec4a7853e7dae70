"""Configuring a network: the arguments of `create_model` as data, and the network that they make (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from inceptionnet.errors import ConfigurationError, listed, nearest
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.ablations import with_edits
from inceptionnet.nets.arguments import (
    Scale,
    at_size,
    cut_after,
    whole,
    with_aux,
    with_classes,
    with_dropout,
    with_embedding,
    with_head,
    with_pool,
    with_residual_scale,
    with_width,
)
from inceptionnet.nets.spec import Activation, Function, Hidden, Network


@dataclass(frozen=True)
class Configuration:
    """The arguments of `create_model` that define a network; saved in the metadata of a weights file.

    None: as published; num_classes=0: without classifier.
    """

    name: str
    num_classes: int | None = None
    in_channels: int = 3
    width: float = 1.0
    input_size: int | None = None
    residual_scale: Scale | None = None
    dropout: float | None = None
    aux: bool = False
    global_pool: str = "avg"
    """Or "max", "avgmax", "catavgmax", as timm names them, or "": the head gives the grid as it is."""
    last: str | None = None
    """The endpoint that the body ends with, where it is cut."""
    hidden: tuple[Hidden, ...] = ()
    """Layers of the head between its pool and its logits, in order."""
    logits_bias: bool = True
    activation: str = "softmax"
    """Or "sigmoid", see `Network.activation`."""
    embedding: int | None = None
    """Length of the face network's embedding."""
    edits: tuple[str, ...] = ()
    """Names of `ablations.EDITS`, in the order in which they change the network as published."""

    def __post_init__(self) -> None:
        if isinstance(self.residual_scale, Sequence):  # a list if it comes from JSON
            object.__setattr__(self, "residual_scale", tuple(self.residual_scale))
        object.__setattr__(self, "hidden", tuple(_hidden(layer) for layer in self.hidden))
        if isinstance(self.edits, str):
            raise ConfigurationError(f"edits is {self.edits!r}; expected a list of names, such as [{self.edits!r}]")
        object.__setattr__(self, "edits", tuple(self.edits))

    @property
    def title(self) -> str:
        """The name of the network with its edits, for people."""
        return f"{self.name} (edited: {', '.join(self.edits)})" if self.edits else self.name


def configure(configuration: Configuration) -> Network:
    """The network of that name with the given changes; see `create_model` for the arguments.

    Raises:
        ConfigurationError: an unknown name, or a value that cannot be used.
    """
    c = configuration
    if c.name not in NETWORKS:
        raise ConfigurationError(f"unknown network {c.name!r}: {nearest(c.name, NETWORKS)}")
    network = with_edits(NETWORKS[c.name], c.edits)
    network = replace(network, in_channels=whole("in_channels", c.in_channels))
    if c.num_classes is not None:
        network = with_classes(network, c.num_classes)
    if c.width != 1.0:
        network = with_width(network, c.width)
    if c.residual_scale is not None:
        network = with_residual_scale(network, c.residual_scale)
    if c.dropout is not None:
        network = with_dropout(network, c.dropout)
    network = with_aux(network) if c.aux else replace(network, aux={})
    if c.last is not None:
        network = cut_after(network, c.last)
    if c.global_pool != "avg":
        network = with_pool(network, c.global_pool)
    if c.embedding is not None:
        network = with_embedding(network, c.embedding)
    network = with_head(network, c.hidden, c.logits_bias, c.activation)
    return at_size(network, network.input_size if c.input_size is None else c.input_size)


def check_edits(configuration: Configuration) -> None:
    """Check that edits that somebody asks for make a difference in the network without its auxiliary heads, if they go.

    A network that lost its auxiliary heads later may have had edits of them, so `configure` takes these.

    Raises:
        ConfigurationError: an edit without effect; see `with_edits`.
    """
    c = configuration
    if c.name in NETWORKS:
        with_edits(NETWORKS[c.name] if c.aux else replace(NETWORKS[c.name], aux={}), c.edits)


def _hidden(layer: Hidden | Mapping[str, Any]) -> Hidden:
    """A hidden layer; from JSON it comes as its fields, which no two kinds have in common."""
    if isinstance(layer, Mapping):
        for kind in get_args(Hidden):
            if {field.name for field in fields(kind)} == set(layer):
                layer = kind(**layer)
                break
    known = not isinstance(layer, Activation) or layer.function in get_args(Function)
    if not known or not isinstance(layer, Hidden):
        raise ConfigurationError(
            f"hidden has {layer!r}; expected Linear, BatchNorm, Dropout, or Activation with one of "
            f"{listed(get_args(Function), last='or')}"
        )
    return layer
