"""Which network a described Keras model contains: the trees of this package, traced from the last grid to the image.

Every kernel, stride, padding, concatenation and residual scale is compared, so that a network that is found computes
what the model computes, whatever its layers are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import closing, pair
from inceptionnet.nets.spec import AvgPool, Branches, Chain, Conv, MaxPool, Network, Node, Residual
from inceptionnet.weights.description.functions import function_of
from inceptionnet.weights.description.graph import TENSOR, Call

INACTIVE = frozenset(
    {
        "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
        "ActivityRegularization", "Identity",
    }
)  # fmt: skip
"""Layers that give their input at inference."""


@dataclass(frozen=True)
class Base:
    """A network inside a described model."""

    network: Network
    last: str
    """The endpoint that the model takes the grid from."""
    layers: Mapping[str, tuple[Call, Call | None]]
    """By path in the tree (`Row.path`), each convolution and its batch norm."""
    image: Call
    """What it takes as its image."""
    scales: tuple[str, ...]
    """Lambda layers that a residual scale was read from, whose code is not read."""

    @property
    def whole(self) -> bool:
        """Whether the network is not cut."""
        return self.last == list(self.network.body)[-1]


class Differs(Exception):
    """The layers are not those of the node."""


def base_at(call: Call, networks: Sequence[str] = tuple(NETWORKS)) -> Base | None:
    """The network whose grid is the output of `call`; of those that fit, the one with the most endpoints."""
    found = [base for name in networks if (base := _traced(NETWORKS[name], call))]
    return max(found, key=lambda base: (base.whole, len(base.layers)), default=None)


def nearest_base(calls: Sequence[Call]) -> Base | None:
    """The largest part of a network that any of the calls or what they take gives, of at least ten layers."""
    seen: set[Call] = set()
    waiting, best = list(calls), None
    while waiting:
        call = waiting.pop()
        if call in seen:
            continue
        seen.add(call)
        base = base_at(call)
        if base and len(base.layers) >= 10 and (best is None or len(base.layers) > len(best.layers)):
            best = base
        waiting += call.inputs
    return best


def live(call: Call) -> Call:
    """The call itself, or what it takes if it does nothing at inference."""
    while len(call.inputs) == 1 and does_nothing(call):
        call = call.inputs[0]
    return call


def does_nothing(call: Call) -> bool:
    """Whether a layer gives its input at inference."""
    if call.kind in INACTIVE:
        return not call.training
    return function_of(call) == ("linear", None)


def _traced(network: Network, call: Call) -> Base | None:
    if network.conventions.batch_norm_eps is None or network.conventions.same != "tensorflow":
        return None  # those of Keras have batch norm, and its padding is TensorFlow's
    names = list(network.body)
    for count in range(len(names), 0, -1):
        tracer = _Tracer(network)
        try:
            image = tracer.chain([(f"body.{name}", network.body[name]) for name in names[:count]], call)
        except Differs:
            continue
        return Base(network, names[count - 1], tracer.layers, live(image), tuple(tracer.scales))
    return None


class _Tracer:
    """Follows a model backwards, beside the tree of a network."""

    def __init__(self, network: Network) -> None:
        self.conventions = network.conventions
        self.layers: dict[str, tuple[Call, Call | None]] = {}
        self.scales: list[str] = []

    def node(self, node: Node, path: str, call: Call) -> Call:
        """The input of a node whose output is that of `call`."""
        call = live(call)
        match node:
            case Conv():
                return self._convolution(node, path, call)
            case MaxPool():
                return self._pool(node, call, ("MaxPooling2D", "MaxPool2D"))
            case AvgPool():
                if node.padding != "valid" and self.conventions.average_counts_padding:
                    raise Differs
                return self._pool(node, call, ("AveragePooling2D", "AvgPool2D"))
            case Branches(chains=chains):
                _require(call.kind == "Concatenate" and _axis_last(call) and len(call.inputs) == len(chains))
                pairs = list(zip(chains.items(), call.inputs, strict=True))
                starts = {
                    self.chain(_parts(chain, f"{path}.{name}"), given) for (name, chain), given in reversed(pairs)
                }
                _require(len(starts) == 1)
                return starts.pop()
            case Residual():
                return self._residual(node, path, call)
            case Mapping() | Sequence():
                return self.chain(_parts(node, path), call)
        raise Differs

    def chain(self, parts: Sequence[tuple[str, Node]], call: Call) -> Call:
        """The same of nodes one after another."""
        for path, part in reversed(parts):
            call = self.node(part, path, call)
        return live(call)

    def _convolution(self, node: Conv, path: str, call: Call) -> Call:
        if node.relu:
            _require(function_of(call) == ("relu", None))
            call = live(_only(call))
        norm = None
        if node.norm:
            c = call.config
            _require(call.kind == "BatchNormalization" and _axis_last(call))
            _require(c.get("epsilon") == self.conventions.batch_norm_eps)
            norm, call = call, live(_only(call))
        c = call.config
        _require(call.kind in ("Conv2D", "Convolution2D") and c.get("filters") == node.filters)
        _require(_sides(c.get("kernel_size")) == pair(node.kernel) and _sides(c.get("strides", 1)) == pair(node.stride))
        _require(_sides(c.get("dilation_rate", 1)) == (1, 1) and c.get("groups", 1) == 1)
        _require(c.get("activation") in (None, "linear") and c.get("data_format") in (None, "channels_last"))
        if pair(node.kernel) != (1, 1):
            _require(c.get("padding", "valid") == ("same" if node.padding in ("same", "after") else node.padding))
        _require(norm is not None or bool(c.get("use_bias", True)))
        self.layers[path] = call, norm
        return _only(call)

    def _pool(self, node: MaxPool | AvgPool, call: Call, kinds: tuple[str, ...]) -> Call:
        c = call.config
        size = _sides(c.get("pool_size", 2))
        _require(call.kind in kinds and size == pair(node.kernel))
        _require((_sides(c.get("strides")) or size) == pair(node.stride))
        _require(c.get("padding", "valid") == ("same" if node.padding in ("same", "after") else node.padding))
        _require(c.get("data_format") in (None, "channels_last"))
        return _only(call)

    def _residual(self, node: Residual, path: str, call: Call) -> Call:
        if node.relu:
            _require(function_of(call) == ("relu", None))
            call = live(_only(call))
        _require(len(call.inputs) == 2)
        start, up = call.inputs
        if call.kind == "Add":
            scale = _scale(up)
            if scale is not None:
                self._scaled_by(up)
                up = _only(up)
        else:
            scale = _scale(call)
            _require(scale is not None)
            self._scaled_by(call)
        _require(isclose(scale or 1.0, node.scale or 1.0, rel_tol=1e-6))
        close = closing(int(live(up).config.get("filters") or 0))
        body = self.node(close, f"{path}.closing", live(up))
        _require(self.node(node.body, f"{path}.branches", body) is live(start))
        return live(start)

    def _scaled_by(self, call: Call) -> None:
        if call.kind == "Lambda":
            self.scales.append(call.name)


def _scale(call: Call) -> float | None:
    """The factor of a layer that scales a residual, None if it is no such layer."""
    arguments = call.config.get("arguments")
    value: Any = None
    if call.kind == "Lambda" and isinstance(arguments, Mapping) and arguments.keys() == {"scale"}:
        value = arguments["scale"]
    elif call.kind == "CustomScaleLayer" or (call.kind == "Rescaling" and call.config.get("offset", 0) == 0):
        value = call.config.get("scale")
    elif call.kind == "Multiply" and TENSOR in call.operands:
        value = next((one for one in call.operands if one is not TENSOR), None)
    return float(value) if isinstance(value, int | float) else None


def _parts(chain: Chain, path: str) -> list[tuple[str, Node]]:
    named: Iterator[tuple[Any, Node]] = iter(chain.items()) if isinstance(chain, Mapping) else enumerate(chain)
    return [(f"{path}.{name}", part) for name, part in named]


def _only(call: Call) -> Call:
    _require(len(call.inputs) == 1)
    return call.inputs[0]


def _require(holds: bool) -> None:
    if not holds:
        raise Differs


def _sides(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return (value, value)
    return (value[0], value[1]) if isinstance(value, list) and len(value) == 2 else None


def _axis_last(call: Call) -> bool:
    axis = call.config.get("axis", -1)
    return (axis[0] if isinstance(axis, list) and len(axis) == 1 else axis) in (-1, 3)
