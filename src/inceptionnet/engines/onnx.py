"""Converting a module to ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inceptionnet.engines.program import quietly, to_program
from inceptionnet.engines.sessions import INPUT, OUTPUT
from inceptionnet.system.extras import import_extra

if TYPE_CHECKING:
    import onnx


def import_onnx() -> list[ModuleType]:
    """Import what converts to ONNX. Raises: MissingExtraError: onnx or onnxscript is not installed."""
    return [import_extra(package, "onnx", "ONNX") for package in ("onnx", "onnxscript")]


def to_onnx(
    module: nn.Module,
    example: Tensor,
    *,
    dynamic_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (OUTPUT,),
) -> onnx.ModelProto:
    """Convert `module`, in evaluation mode, to an ONNX model with weights, in torch's default opset.

    Args:
        example: an example input; height and width are fixed to it.
        dynamic_batch: dynamic batch size; otherwise that of the example.
        metadata: stored in the model's metadata_props.
        outputs: names of what the module gives, one tensor or several.

    Shapes: example (N, C, H, W).

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    import_onnx()
    import onnx

    program = to_program(module, example, dynamic_batch=dynamic_batch)
    with quietly():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=list(outputs),
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
