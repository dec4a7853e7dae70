"""Keras's description of a model, as JSON, as a graph of calls; nothing is built or executed.

Source: the configurations that keras/src/models/functional.py and sequential.py write, and those of Keras 1 and 2.
Models inside models are resolved, so that the graph has layers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inceptionnet.errors import listed, one_line

MODELS = ("Functional", "Model", "Sequential", "Pipeline")
INPUT = "InputLayer"
MOST_CALLS = 50_000
"""The largest network of the family has 800; models that call models could multiply without end."""


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a layer."""

    name: str
    """Of the layer."""
    kind: str
    """Class of the layer."""
    config: Mapping[str, Any]
    inputs: tuple[Call, ...] = ()
    operands: tuple[Any, ...] = ()
    """Of an operation such as x / 127.5: its arguments in order, `TENSOR` for the inputs."""
    named: Mapping[str, Any] = field(default_factory=dict)
    """Arguments by keyword, without the inputs."""
    training: bool = False
    """Whether it, or a model around it, is called with training=True."""
    shapes: list[Sequence[int | None]] = field(default_factory=list)
    """Of its output, (N, height, width, channels), as inputs of models state it."""

    def __str__(self) -> str:
        return one_line(f"{self.name} ({self.kind})", 80)


TENSOR = object()
Reference = tuple[str, int, int]


class Unreadable(Exception):
    """The description is not one that Keras writes, or of a class of model whose layers it does not list."""


def graph_of(description: Mapping[str, Any]) -> tuple[list[Call], list[Call]]:
    """The inputs and outputs of a described model.

    Raises:
        Unreadable: it does not list the model's layers, or has no end.
    """
    reader = _Reader()
    try:
        outputs = reader.model(description, None, False)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise Unreadable(one_line(repr(error))) from None
    return reader.inputs, outputs


def is_of_keras(described: Mapping[str, Any]) -> bool:
    """Whether a class or function is Keras's own: those of users may have the same name."""
    top = str(described.get("module")).partition(".")[0]
    return top in ("keras", "tf_keras", "tensorflow") or described.get("registered_name") in (None, "")


def layers_of(model: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Name, class and configuration of every layer and model in a description, from outside to inside."""
    config = model.get("config") if isinstance(model, Mapping) else None
    layers = config if isinstance(config, list) else config.get("layers") if isinstance(config, Mapping) else None
    for layer in layers if isinstance(layers, list) else ():
        inner = layer.get("config") if isinstance(layer, Mapping) else None
        if isinstance(inner, Mapping):
            yield str(inner.get("name", layer.get("name"))), str(layer.get("class_name")), inner
        yield from layers_of(layer)


class _Reader:
    def __init__(self) -> None:
        self.inputs: list[Call] = []
        self.count = 0

    def model(self, model: Mapping[str, Any], given: Sequence[Call] | None, training: bool) -> list[Call]:
        """The outputs of a model; `given`: what it is called on, None for the outermost."""
        config = model["config"]
        if isinstance(config, list) or "input_layers" not in config:
            return self._chain(model, given, training)
        known: dict[str, list[list[Call]]] = {}
        names = [name for name, _, _ in _references(config["input_layers"])]
        by_name = {_name(layer): layer for layer in config["layers"]}
        for i, name in enumerate(names):
            shape = _shape(by_name[name]["config"])
            known[name] = [[self._input(name, shape) if given is None else _seen(given[i], shape)]]
        waiting = [layer for layer in config["layers"] if _name(layer) not in known]
        while waiting:
            left = [layer for layer in waiting if not self._called(layer, known, training)]
            if len(left) == len(waiting):
                raise Unreadable(f"no inputs of {listed(map(_name, left))}")
            waiting = left
        return [known[name][call][tensor] for name, call, tensor in _references(config["output_layers"])]

    def _chain(self, model: Mapping[str, Any], given: Sequence[Call] | None, training: bool) -> list[Call]:
        """The output of a sequential model."""
        config = model["config"]
        layers = config if isinstance(config, list) else config["layers"]
        about = {} if isinstance(config, list) else config
        shape = about.get("build_input_shape") or (model.get("build_config") or {}).get("input_shape")
        shape = shape or (_shape(layers[0]["config"]) if layers and isinstance(layers[0]["config"], Mapping) else None)
        now = list(given) if given is not None else [self._input("input", shape)]
        _seen(now[0], shape)
        for layer in layers:
            if layer["class_name"] == INPUT:
                _seen(now[0], _shape(layer["config"]))
            elif _is_model(layer):
                now = self.model(layer, now, training)
            else:
                now = [self._call(layer, now, (), {}, training)]
        return now

    def _called(self, layer: Mapping[str, Any], known: dict[str, list[list[Call]]], training: bool) -> bool:
        """Resolve every call of a layer whose inputs are known; whether all are."""
        first = _first_call(layer)
        done = known.setdefault(_name(layer), [[]] * first)
        for node in layer["inbound_nodes"][len(done) - first :]:
            references, operands, named = _arguments(node, known)
            try:
                inputs = [known[name][call][tensor] for name, call, tensor in references]
            except (KeyError, IndexError):
                return False
            live = training or named.get("training") is True
            if _is_model(layer):
                done.append(self.model(layer, inputs, live))
            else:
                done.append([self._call(layer, inputs, operands, named, live)])
        return True

    def _call(
        self, layer: Mapping[str, Any], inputs: Sequence[Call], operands: tuple[Any, ...], named: Mapping[str, Any],
        training: bool,
    ) -> Call:  # fmt: skip
        config = layer["config"]
        if not isinstance(config, Mapping):
            raise Unreadable(f"the layer {_name(layer)} has no configuration")
        kind = str(layer["class_name"])
        if not is_of_keras(layer):
            kind = f"{layer.get('registered_name')}, a class of its author"
        return self._counted(Call(_name(layer), kind, config, tuple(inputs), operands, named, training))

    def _input(self, name: str, shape: Any) -> Call:
        found = self._counted(Call(name, INPUT, {}))
        self.inputs.append(found)
        return _seen(found, shape)

    def _counted(self, call: Call) -> Call:
        self.count += 1
        if self.count > MOST_CALLS:
            raise Unreadable(f"more than {MOST_CALLS} calls of layers")
        return call


def _name(layer: Mapping[str, Any]) -> str:
    config = layer["config"]
    return str(layer.get("name") or (config.get("name") if isinstance(config, Mapping) else None) or "unnamed")


def _first_call(layer: Mapping[str, Any]) -> int:
    """The number of a layer's first call: 1 of Keras 2's models with an input, which count their making as a call."""
    config, nodes = layer["config"], layer["inbound_nodes"]
    inner = config if isinstance(config, list) else config.get("layers")
    old = bool(nodes) and not isinstance(nodes[0], Mapping)
    return int(old and _is_model(layer) and bool(inner) and inner[0]["class_name"] == INPUT)


def _is_model(layer: Mapping[str, Any]) -> bool:
    config = layer["config"]
    return layer["class_name"] in MODELS and (isinstance(config, list) or "layers" in config)


def _shape(config: Mapping[str, Any]) -> Any:
    return config.get("batch_shape") or config.get("batch_input_shape")


def _seen(call: Call, shape: Any) -> Call:
    """The call, with a shape that its output is stated to have."""
    if isinstance(shape, list) and all(side is None or isinstance(side, int) for side in shape):
        call.shapes.append(shape)
    return call


def _references(value: Any) -> list[Reference]:
    """All tensors named in a structure of lists: (layer, call, tensor), as Keras 2 and 3 write them."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            return _references(value["config"]["keras_history"])
        return [found for part in value.values() for found in _references(part)]
    if not isinstance(value, list):
        return []
    if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int) and isinstance(value[2], int):
        return [(value[0], value[1], value[2])]
    return [found for part in value for found in _references(part)]


def _arguments(node: Any, known: Mapping[str, Any]) -> tuple[list[Reference], tuple[Any, ...], dict[str, Any]]:
    """The tensors that a call takes, its arguments in order, and those by keyword."""
    if isinstance(node, Mapping):  # Keras 3
        named = dict(node.get("kwargs") or {})
        positional = list(node["args"])
    else:
        entries = [node] if node and isinstance(node[0], str) else list(node)
        named = {key: value for entry in entries if len(entry) > 3 for key, value in (entry[3] or {}).items()}
        positional = [entry[2] if entry[0] == "_CONSTANT_VALUE" else entry[:3] for entry in entries]
    tensors: list[Reference] = []
    operands: list[Any] = []
    for value in positional:
        found = _references(value)
        tensors += found
        operands.append(TENSOR if found else value)
    for key, value in list(named.items()):
        # Keras 2 names a tensor like any list of a text and two numbers: it is one if there is such a layer.
        if found := [one for one in _references(value) if isinstance(value, Mapping) or one[0] in known]:
            tensors += found
            named[key] = TENSOR
    return tensors, tuple(operands), named
