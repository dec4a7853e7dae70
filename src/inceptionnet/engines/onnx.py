"""Converting a module to ONNX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inceptionnet.engines.program import quietly, to_program
from inceptionnet.system.extras import import_extra

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "logits"
"""The names of input and output, in ONNX and OpenVINO."""


def import_onnxruntime(module: str = "onnxruntime") -> ModuleType:
    """Import onnxruntime, or a module of it, with telemetry disabled.

    Otherwise importing it writes an identifier and a database of events to the home folder and sends reports. If the
    environment variable is set already, it is respected.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_extra(module, "onnx", "ONNX Runtime")


def to_onnx(
    module: nn.Module, example: Tensor, *, dynamic_batch: bool = True, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """Convert `module`, in evaluation mode, to an ONNX model with weights, in torch's default opset.

    Args:
        example: an example input; height and width are fixed to it.
        dynamic_batch: dynamic batch size; otherwise that of the example.
        metadata: stored in the model's metadata_props.

    Shapes: example (N, C, H, W).

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript"):
        import_extra(package, "onnx", "ONNX")
    import onnx

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
    """Remove the Python source locations of the nodes, which are long and may be private."""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
