"""A described model, whose network was found, in this package's terms: configuration, tensors, preprocessing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import Any

from torch import Tensor

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import WeightsError, listed
from inceptionnet.model.build import NORM
from inceptionnet.nets.analysis import GridTooSmall, analyse
from inceptionnet.nets.arguments import other_embedding
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Activation, BatchNorm, Dropout, Linear, Network
from inceptionnet.weights.description.base import Base
from inceptionnet.weights.description.graph import Call, layers_of
from inceptionnet.weights.description.head import Found, folded, head_between
from inceptionnet.weights.description.scaling import Scaling, preprocessing_of
from inceptionnet.weights.description.values import body_of, completed
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.heads import Head, Part, head_of
from inceptionnet.weights.layouts import facenet, keras
from inceptionnet.weights.layouts.layout import Layout
from inceptionnet.weights.translate import Translation

PUBLISHED = {
    "inception_v3": keras.INCEPTION_V3,
    "inception_resnet_v2.slim": keras.INCEPTION_RESNET_V2,
    "inception_resnet_v1.facenet": facenet.KERAS,
}

OF_VALUES = re.compile(r"\b(mse|mae|mape|msle)\b|meansquared|meanabsolute|huber|logcosh|poisson|cosinesim|hinge")
"""Losses of regression and of margins, in lower case without underscores."""


@dataclass(frozen=True)
class Described:
    """A file that describes its model, read by that description."""

    translation: Translation
    preprocessing: Preprocessing
    origin: str
    """Of the preprocessing, in words."""


class Model:
    """A described model whose network is known."""

    def __init__(self, stored: Stored, base: Base, chain: list[Call], pool: str, name: str | None) -> None:
        self.stored = stored
        self.base = base
        self.chain = chain
        if quantised := [
            name for name, _, config in layers_of(stored.description) if _is_quantised(config.get("dtype"))
        ]:
            raise WeightsError(
                f"{stored.path}: {listed(quantised)} quantised (int8 or the like), whose weights and activations are "
                "rounded; give the model that it was quantised from"
            )
        self.network: str = self._network(name)
        published = PUBLISHED.get(base.network.name)
        self.title: str = published.name if published else f"{base.network.name} in Keras"
        usual = (published or keras.INCEPTION_V3).preprocessing
        cropped = self._is_published(chain)
        self.scaling: Scaling = preprocessing_of(base.image, stored.path, stored.tensors, usual, cropped)
        self.found: Found = head_between(chain, pool, self._grid(), stored.path, stored.tensors)
        self.said: list[str] = list(self.scaling.said)
        self.changed: list[str] = []

    def read(self) -> Described:
        """Network, head and preprocessing of the file."""
        path, held = self.stored.path, self.stored.tensors
        parts = self.found.parts
        bare = Configuration(
            self.network,
            num_classes=0,
            in_channels=self.scaling.preprocessing.channels,
            last=None if self.base.whole else self.base.last,
        )
        tensors, computed, biases = body_of(self._tree(), self.base.layers, path, held)
        if "embedding" in self.base.network.head:
            parts, length = self._embedding(parts, tensors, computed)
            bare = replace(bare, embedding=other_embedding(self.network, length))
        head = self._head(parts)
        configuration = replace(bare, global_pool=self.found.pool or "avg")
        if head:
            tensors |= head.tensors
            computed |= head.initialised
            configuration = replace(
                configuration, num_classes=head.num_classes, hidden=head.hidden, logits_bias=head.logits_bias,
                activation=head.activation, dropout=head.dropout,
            )  # fmt: skip
        if biases:
            self.changed.append(f"{biases} convolutions' biases folded into the batch norm's mean")
        self._say()
        prep = self.scaling.preprocessing
        layout = Layout(self.title, (self.network,), keras.STYLE, {}, (), prep)
        translation = Translation(
            layout, configuration, tensors, False, self._dropped(), computed, tuple(self.changed), tuple(self.said)
        )
        return Described(translation, prep, self.scaling.origin)

    def _network(self, asked: str | None) -> str:
        """The network that the model is, or the one asked for if its weights fit."""
        name = self.base.network.name
        published = PUBLISHED.get(name)
        fits = published.networks if published else (name,)
        if asked is not None and asked not in fits:
            raise WeightsError(f"{self.stored.path}: describes {name}, not {asked}; omit the name or change it")
        return asked or name

    def _tree(self) -> Network:
        last = None if self.base.whole else self.base.last
        return configure(Configuration(self.base.network.name, num_classes=0, last=last))

    def _dropped(self) -> dict[str, str]:
        used = {layer.name for pair in self.base.layers.values() for layer in pair if layer} | self.found.used
        used |= self.scaling.used
        left = [name for name in self.stored.tensors if name.partition("/")[0] not in used]
        return {**self.stored.dropped, **dict.fromkeys(sorted(left), "not between the input and the output")}

    def _is_published(self, chain: list[Call]) -> bool:
        """Whether the model is one of keras.applications as it is published, at its size."""
        return bool(chain) and chain[0].name == "predictions" and chain[0].config.get("units") == 1000

    def _grid(self) -> tuple[int, int]:
        """Height and width of the grid that the network gives."""
        size = self.scaling.preprocessing.size_px
        try:
            rows = analyse(self._tree(), (size, size))
        except GridTooSmall:
            raise WeightsError(
                f"{self.stored.path}: its images of {size} px are too small for {self.network}; give larger ones"
            ) from None
        output = next(row for row in rows if row.path == f"body.{self.base.last}").output
        return output.height, output.width

    def _embedding(
        self, parts: list[Part], tensors: dict[str, Tensor], computed: dict[str, str]
    ) -> tuple[list[Part], int]:
        """The head's layers after the embedding, whose tensors are added, and its length."""
        eps = self.base.network.conventions.batch_norm_eps
        rest = list(dropwhile(lambda part: isinstance(part.node, Dropout), parts))
        nodes = [part.node for part in rest[:2]]
        if not (
            len(nodes) == 2 and isinstance(nodes[0], Linear) and not nodes[0].bias and nodes[1] == BatchNorm(eps or 0)
        ):
            raise WeightsError(
                f"{self.stored.path}: expected {self.title} with its embedding (a dense layer without bias, batch norm "
                f"with epsilon {eps}), got {listed((part.name for part in parts), ordered=True) or 'no head'}"
            )
        names = {role: f"head.embedding.bn.{name}" for role, name in NORM.items()}
        norm = completed(dict(rest[1].tensors), names, computed)
        tensors |= {names[role]: tensor for role, tensor in norm.items()}
        tensors["head.embedding.linear.weight"] = rest[0].tensors["weight"]
        return rest[2:], nodes[0].filters

    def _head(self, parts: list[Part]) -> Head | None:
        """The layers after the pool; None if there are none."""
        path = self.stored.path
        if not self.found.pool:
            if parts:
                raise WeightsError(
                    f"{path}: {parts[0].name} comes after the base without a global pool, which heads have; add one"
                )
            self.said.append("its output is the grid, here its average")
        if not any(isinstance(part.node, Linear) for part in parts):
            if any(not isinstance(part.node, Dropout) for part in parts):
                raise WeightsError(
                    f"{path}: expected a dense layer for the logits, got a head of "
                    f"{listed((part.name for part in parts), ordered=True)}; save the model with one, or without a head"
                )
            return None
        sigmoid = not self.found.activation and parts[-1].node == Activation("sigmoid")
        layers, done = folded(parts[:-1] if sigmoid else parts)
        if done:
            self.changed.append("batch norm after the last dense layer computed into it")
        activation = "sigmoid" if sigmoid else self.found.activation or self._assumed(layers)
        return head_of(layers, path, activation)

    def _assumed(self, parts: list[Part]) -> str:
        """What makes probabilities of logits that the model gives as they are: by its loss, else by their number."""
        loss = str(_loss(self.stored.description)).lower()
        classes = [part.node.filters for part in parts if isinstance(part.node, Linear)][-1]
        if values := OF_VALUES.search(loss.replace("_", "")):
            raise WeightsError(
                f"{self.stored.path}: its output has no activation and was trained with a loss of values "
                f"({values[0]}), not of classes; this package has probabilities only: run the model in Keras, or save "
                "it without the last layer for its features"
            )
        if "binary" in loss:
            self.said.append("its output is logits: sigmoid, by its binary loss")
            return "sigmoid"
        which = "sigmoid" if classes == 1 else "softmax"
        self.said.append(f"its output is logits: {which} assumed")
        return which

    def _say(self) -> None:
        """What else is not taken over as it is."""
        policies = {_policy(config.get("dtype")) for _, _, config in layers_of(self.stored.description)}
        if lower := sorted(policies - {"float32", ""}):
            self.said.append(f"computed in float32, not {listed(lower)}")
        if self.base.scales:
            self.said.append("residual scales read from the arguments of its Lambda layers")
        if self.found.left:
            self.said.append(f"left out, inactive at inference: {listed(self.found.left)}")


def _loss(description: Mapping[str, Any]) -> Any:
    compiled = description.get("compile_config")
    return compiled.get("loss") if isinstance(compiled, Mapping) else None


def _is_quantised(dtype: Any) -> bool:
    """Whether a layer's dtype policy is of a quantised layer."""
    inner = dtype.get("config") if isinstance(dtype, Mapping) else None
    return "_from_" in _policy(dtype) or (isinstance(inner, Mapping) and bool(inner.get("mode")))


def _policy(dtype: Any) -> str:
    """The name of a layer's dtype policy, in any of the forms that Keras writes."""
    if isinstance(dtype, Mapping):
        inner = dtype.get("config")
        return str(inner.get("name", "")) if isinstance(inner, Mapping) else ""
    return str(dtype or "")
