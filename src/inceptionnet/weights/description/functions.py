"""Activation functions of Keras, by their layers and by name, as this package's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inceptionnet.weights.description.graph import Call, is_of_keras

PLAIN = {
    "linear": "linear", "relu": "relu", "relu6": "relu6", "selu": "selu", "tanh": "tanh", "sigmoid": "sigmoid",
    "softplus": "softplus", "silu": "silu", "swish": "silu", "softmax": "softmax", "elu": "elu", "gelu": "gelu",
}  # fmt: skip
"""Names of functions without a setting that counts: those in `FUNCTIONS` of the networks, and two for the logits."""
LEAKY_SLOPE = 0.2  # of the function; the layer's default is 0.3
LAYER_SLOPE = 0.3

Found = tuple[str, float | None]


def function_of(call: Call) -> Found | None:
    """The function that a layer is, and the slope of leaky_relu below 0; None if it is none of those known.

    "linear" is a layer that does nothing; "softmax" is over the channels.
    """
    return _of(call.kind, call.config)


def named(activation: Any) -> Found | None:
    """The function of a layer's `activation` argument."""
    if activation is None:
        return "linear", None
    if isinstance(activation, Mapping):
        inner = activation.get("config")
        if activation.get("class_name") == "function" or not isinstance(inner, Mapping):
            return named(inner) if isinstance(inner, str) and is_of_keras(activation) else None
        return _of(str(activation.get("class_name")), inner) if is_of_keras(activation) else None
    if activation == "leaky_relu":
        return "leaky_relu", LEAKY_SLOPE
    found = PLAIN.get(activation) if isinstance(activation, str) else None
    return (found, None) if found else None


def _of(kind: str, config: Mapping[str, Any]) -> Found | None:
    match kind:
        case "Activation":
            return named(config.get("activation"))
        case "ReLU":
            slope, top = config.get("negative_slope") or 0, config.get("max_value")
            if (config.get("threshold") or 0) or (slope and top is not None) or top not in (None, 6):
                return None
            return ("leaky_relu", float(slope)) if slope else ("relu" if top is None else "relu6", None)
        case "LeakyReLU":
            slope = config.get("negative_slope", config.get("alpha", LAYER_SLOPE))
            slope = slope.get("value") if isinstance(slope, Mapping) else slope  # Keras 2 kept an array
            return ("leaky_relu", float(slope)) if isinstance(slope, int | float) else None
        case "ELU":
            alpha = config.get("alpha", 1.0)
            alpha = alpha.get("value") if isinstance(alpha, Mapping) else alpha
            return ("elu", None) if alpha == 1 else None
        case "Softmax":
            return ("softmax", None) if config.get("axis", -1) in (-1, [-1]) else None
        case "Relu" | "Relu6" | "Selu" | "Tanh" | "Sigmoid" | "Softplus" | "Silu" | "Swish":  # functions of Keras's ops
            return PLAIN[kind.lower()], None
        case "Gelu":
            return ("gelu_tanh" if config.get("approximate", True) else "gelu"), None
    return None
