"""A module as an ONNX model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inceptionnet.engines.program import quietly, to_program
from inceptionnet.errors import missing_extra

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "logits"
"""The names of the one input and the one output, in ONNX and OpenVINO alike."""


def import_onnxruntime(module: str = "onnxruntime") -> ModuleType:
    """The package onnxruntime, or a module of it, without its telemetry.

    Else importing it writes an identifier and a database of events into the home folder and reports to its makers. What
    the variable says already is left as it is.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module(module)
    except ImportError:
        raise missing_extra("onnxruntime", "onnx", "ONNX Runtime") from None


def to_onnx(
    module: nn.Module, example: Tensor, *, dynamic_batch: bool = True, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """`module`, in evaluation mode, as an ONNX model of the opset that torch writes, weights included.

    Args:
        example: an input; its height and width become the model's.
        dynamic_batch: for any number of images, else for as many as the example has.
        metadata: goes into the model's metadata_props.

    Shapes: example (N, C, H, W).

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise missing_extra("onnx and onnxscript", "onnx", "ONNX") from None
    program = to_program(module, example, dynamic_batch=dynamic_batch)
    with quietly():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},) if dynamic_batch else None,
            external_data=False,
        )
    assert converted is not None
    model: onnx.ModelProto = converted.model_proto
    _forget_origin(model.graph)
    onnx.helper.set_model_props(model, dict(metadata or {}))
    return model


def _forget_origin(graph: onnx.GraphProto) -> None:
    """Take out where in which Python file each node comes from: long, and nobody's business."""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
