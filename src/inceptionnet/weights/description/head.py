"""What a described Keras model has between its network and its output: the pool, and the layers of the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from inceptionnet.errors import WeightsError
from inceptionnet.nets.spec import Activation, BatchNorm, Dropout, Linear
from inceptionnet.weights.description.affine import is_cast
from inceptionnet.weights.description.base import INACTIVE, does_nothing
from inceptionnet.weights.description.functions import function_of, named
from inceptionnet.weights.description.graph import Call
from inceptionnet.weights.description.values import roles_of
from inceptionnet.weights.heads import Part

AVERAGE = ("GlobalAveragePooling2D", "GlobalAvgPool2D")
MAXIMUM = ("GlobalMaxPooling2D", "GlobalMaxPool2D")
WINDOWS = {"AveragePooling2D": "avg", "AvgPool2D": "avg", "MaxPooling2D": "max", "MaxPool2D": "max"}


@dataclass
class Found:
    """The head of a described model."""

    pool: str = ""
    """As `Configuration.global_pool`; "" if the model gives the grid."""
    parts: list[Part] = field(default_factory=list)
    activation: str = ""
    """Of the output: softmax or sigmoid; "" if the model gives logits, or features."""
    used: set[str] = field(default_factory=set)
    """Layers whose tensors it has."""
    left: list[str] = field(default_factory=list)
    """Layers that do nothing at inference and are not kept for training."""


def pooled(call: Call) -> tuple[str, Call] | None:
    """The pool that joins global average and maximum, and the grid that it takes; None if the layer is no such pool."""
    if call.kind not in ("Concatenate", "Average") or len(call.inputs) != 2:
        return None
    first, second = call.inputs
    if first.inputs[:1] != second.inputs[:1] or not first.inputs:
        return None
    kinds = (first.kind in AVERAGE, second.kind in MAXIMUM)
    if call.kind == "Average" and (kinds == (True, True) or (first.kind in MAXIMUM and second.kind in AVERAGE)):
        return "avgmax", first.inputs[0]
    return ("catavgmax", first.inputs[0]) if call.kind == "Concatenate" and kinds == (True, True) else None


def head_between(
    calls: Sequence[Call], pool: str, grid: tuple[int, int] | None, path: Path, tensors: Mapping[str, Tensor]
) -> Found:
    """The head that these layers are, in order of computation.

    Args:
        pool: the pool before them, if it is one that joins two.
        grid: height and width of the grid that the network gives, if the image size is known.

    Raises:
        WeightsError: a layer that heads do not have, or weights that the file lacks.
    """
    found = Found(pool)
    for call in calls:
        if found.activation and not does_nothing(call):
            raise _between(path, call, f"after the {found.activation} of the output")
        _add(found, call, grid, path, tensors)
    return found


def _add(found: Found, call: Call, grid: tuple[int, int] | None, path: Path, tensors: Mapping[str, Tensor]) -> None:
    c = call.config
    if call.training and call.kind in ("Dropout", "BatchNormalization", *INACTIVE):
        raise _between(path, call, "and is called with training=True")
    if not found.pool and (kind := _pool(call, grid, path)):
        if found.parts and kind != "avg":  # batch norm and the mean may change places, batch norm and the maximum not
            raise _between(path, call, f"after {found.parts[0].name}, and batch norm comes after the pool here")
        found.pool = kind
    elif call.kind == "Dropout" and found.pool:
        rate = c.get("rate", c.get("p"))
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise _between(path, call, f"with a rate of {rate!r}")
        found.parts.append(Part(call.name, Dropout(float(rate))))
    elif does_nothing(call):
        if call.kind in INACTIVE:
            found.left.append(str(call))
    elif call.kind == "BatchNormalization":
        eps, axis = c.get("epsilon", 1e-3), c.get("axis", -1)
        if c.get("renorm") or not isinstance(eps, int | float):
            raise _between(path, call, "with settings that batch norm here does not have")
        if (axis[0] if isinstance(axis, list) and axis else axis) not in (-1, 1, 3):
            raise _between(path, call, f"with axis {axis!r}")
        found.used.add(call.name)
        found.parts.append(Part(call.name, BatchNorm(float(eps)), roles_of(call, path, tensors)))
    elif not found.pool:
        raise _between(path, call, "before any global pool")
    elif call.kind == "Flatten" or is_cast(call):
        return  # of a vector
    elif call.kind == "Dense":
        roles = roles_of(call, path, tensors)
        found.used.add(call.name)
        found.parts.append(Part(call.name, Linear(len(roles["weight"]), bias="bias" in roles), roles))
        _activate(found, call, named(c.get("activation")), path)
    else:
        _activate(found, call, function_of(call), path)


def _activate(found: Found, call: Call, function: tuple[str, float | None] | None, path: Path) -> None:
    if function is None:
        what = f"with activation {call.config['activation']!r:.80}, " if call.config.get("activation") else ""
        raise _between(path, call, f"{what}which this package's heads do not have")
    name, slope = function
    if name == "softmax":
        found.activation = "softmax"
    elif name != "linear":
        found.parts.append(Part(call.name, Activation(name, slope)))  # type: ignore[arg-type]


def _pool(call: Call, grid: tuple[int, int] | None, path: Path) -> str:
    """The global pool that a layer is, "" if it is none."""
    c = call.config
    if call.kind in AVERAGE or call.kind in MAXIMUM:
        if c.get("data_format") == "channels_first":
            raise _between(path, call, "with channels first")
        return "avg" if call.kind in AVERAGE else "max"
    size = "of unknown size" if grid is None else f"of {grid[0]}×{grid[1]}"
    if call.kind == "Flatten":
        if grid != (1, 1):
            raise _between(path, call, f"and flattens a grid {size}; heads here have a global pool")
        return "avg"
    if call.kind in WINDOWS:
        window = c.get("pool_size", [2, 2])
        window = [window, window] if isinstance(window, int) else window
        if grid is None or tuple(window) != grid:
            raise _between(path, call, f"and its window of {'×'.join(map(str, window))} is not the whole grid, {size}")
        return WINDOWS[call.kind]
    return ""


def folded(parts: list[Part]) -> tuple[list[Part], bool]:
    """The parts with a batch norm after the last linear layer computed into that layer, and whether there was one."""
    kinds = [type(part.node) for part in parts]
    if kinds[-2:] != [Linear, BatchNorm]:
        return parts, False
    linear, norm = parts[-2:]
    assert isinstance(norm.node, BatchNorm) and isinstance(linear.node, Linear)
    t: dict[str, Any] = {role: tensor.double() for role, tensor in {**norm.tensors, **linear.tensors}.items()}
    factor = t.get("gamma", 1.0) / (t["var"] + norm.node.eps).sqrt()
    weight = (t["weight"] * factor[:, None]).to(linear.tensors["weight"].dtype)
    bias = ((t.get("bias", 0.0) - t["mean"]) * factor + t.get("beta", 0.0)).to(weight.dtype)
    return [
        *parts[:-2],
        replace(linear, node=replace(linear.node, bias=True), tensors={"weight": weight, "bias": bias}),
    ], True


def _between(path: Path, call: Call, why: str) -> WeightsError:
    return WeightsError(
        f"{path}: {call} stands between the base and the output {why}; remove it and save the model again, or run the "
        "model in Keras"
    )
