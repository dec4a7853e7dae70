"""Plain affine maps among the layers of a described Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inceptionnet.weights.description.graph import INPUT, TENSOR, Call

SYMMETRIC = ("inception_v3", "inception_resnet_v2", "xception", "mobilenet", "mobilenet_v2", "nasnet")
"""Keras's applications whose `preprocess_input` maps 0 to 255 to [-1, 1]."""
OPERATIONS = {
    "TrueDivide": "/", "Divide": "/", "math.truediv": "/", "math.divide": "/", "RealDiv": "/",
    "Multiply": "*", "math.multiply": "*", "Mul": "*",
    "Subtract": "-", "math.subtract": "-", "Sub": "-",
    "Add": "+", "math.add": "+", "__operators__.add": "+", "AddV2": "+",
}  # fmt: skip
CASTS = ("Cast", "cast")
EPSILON = 1e-7
"""What Keras's Normalization divides by at least."""


class Affine(NamedTuple):
    """x → scale · x + offset, per channel or for all."""

    scale: Tensor
    offset: Tensor


def affine_of(call: Call, tensors: Mapping[str, Tensor]) -> Affine | None:
    """The affine map that a layer is; None if it is another, or one that the description does not tell."""
    c = call.config
    match call.kind:
        case "Rescaling":
            return _both(c.get("scale", 1.0), c.get("offset", 0.0))
        case "Normalization":
            return _normalization(call, tensors)
        case "Lambda":
            known = _application(c) or is_named_alone(call)
            return _both(1 / 127.5, -1.0) if known else None
    sign = OPERATIONS.get(operation_of(call))
    if sign is None or len(call.inputs) != 1:
        return None
    first, other = _operands(call)
    value = _numbers(other)
    if value is None:
        return None
    one, nothing = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if sign == "+":
        return Affine(one, value)
    if sign == "*":
        return Affine(value, nothing)
    if sign == "-":
        return Affine(one, -value) if first else Affine(-one, value)
    return Affine(1 / value, nothing) if first and (value != 0).all() else None


def _operands(call: Call) -> tuple[bool, Any]:
    """Whether the tensor comes first, and the constant."""
    if call.kind == "TensorFlowOpLayer":
        constants = call.config.get("constants")
        if not isinstance(constants, Mapping) or len(constants) != 1:
            return True, None
        place, value = next(iter(constants.items()))
        return str(place) == "1", value
    given = [*call.operands, *(call.named[key] for key in ("x1", "x2", "x", "y") if key in call.named)]
    constants = [value for value in given if value is not TENSOR]
    return bool(given) and given[0] is TENSOR, constants[0] if len(constants) == 1 else None


def _application(config: Mapping[str, Any]) -> bool:
    """Whether a Lambda is `preprocess_input` of an application that maps to [-1, 1]."""
    function = config.get("function")
    module = str(config.get("module") or "")
    if isinstance(function, Mapping) and function.get("class_name") == "function":
        module = str(function.get("module"))
    return module.rpartition(".")[2] in SYMMETRIC and ".applications." in f".{module}"


def is_named_alone(call: Call) -> bool:
    """Whether a layer is a Lambda of a function `preprocess_input`; Keras 3 does not write of which application."""
    function = call.config.get("function") if call.kind == "Lambda" else None
    return isinstance(function, Mapping) and (function.get("config"), function.get("module")) == (
        "preprocess_input", "builtins",
    )  # fmt: skip


def _normalization(call: Call, tensors: Mapping[str, Tensor]) -> Affine | None:
    c = call.config
    axis = c.get("axis", -1)
    if axis not in (None, -1, 3, [], [-1], [3]):  # of rows, of columns, or of every pixel
        return None
    mean, variance = c.get("mean"), c.get("variance")
    if mean is None or variance is None:
        mean, variance = tensors.get(f"{call.name}/mean"), tensors.get(f"{call.name}/variance")
    mean, variance = _numbers(mean), _numbers(variance)
    if mean is None or variance is None:
        return None
    std = variance.sqrt().clamp_min(EPSILON)
    return Affine(std, mean) if c.get("invert") else Affine(1 / std, -mean / std)


def _both(scale: Any, offset: Any) -> Affine | None:
    a, b = _numbers(scale), _numbers(offset)
    return None if a is None or b is None else Affine(a, b)


def _numbers(value: Any) -> Tensor | None:
    """One number, or one for each channel: a vector in double precision."""
    if isinstance(value, Mapping):  # an array or a tensor as Keras 3 writes it
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, Mapping) else value.get("value")
    if value is None or isinstance(value, bool | str):
        return None
    try:
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    # One number for each channel: the other axes have length 1.
    return found.flatten() if found.numel() and found.numel() == (found.shape[-1] if found.dim() else 1) else None


def is_cast(call: Call) -> bool:
    """Whether a layer changes the type of numbers alone: to a floating-point one, or of the image itself."""
    if operation_of(call) not in CASTS:
        return False
    stated = [call.config.get("dtype") if call.kind == "Cast" else None, call.named.get("dtype"), *call.operands]
    dtype = next((one for one in stated if isinstance(one, str)), "")
    return "float" in dtype or (bool(call.inputs) and call.inputs[0].kind == INPUT)


def operation_of(call: Call) -> str:
    """The operation of a layer that TensorFlow made of a function, or its class."""
    if call.kind in ("TFOpLambda", "SlicingOpLambda"):
        return str(call.config.get("function"))
    if call.kind == "TensorFlowOpLayer":
        node = call.config.get("node_def")
        return str(node.get("op")) if isinstance(node, Mapping) else call.kind
    return call.kind
