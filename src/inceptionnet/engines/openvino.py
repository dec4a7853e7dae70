"""Converting a module to OpenVINO."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from inceptionnet.engines.program import quietly, to_program
from inceptionnet.engines.sessions import (
    INPUT,
    OUTPUT,
    RT_INFO,
    import_openvino,
    openvino_core,
    without_telemetry,
)
from inceptionnet.system.extras import import_extra

if TYPE_CHECKING:
    import openvino

_FLOAT32: tuple[dict[str, str], ...] = (
    {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"},
    {"name": "precise", "version": "0"},  # its name in older releases
)
"""The attributes of a layer that OpenVINO does not compute in a lower precision by itself."""


def import_nncf() -> ModuleType:
    """Import nncf, which quantises OpenVINO models, with telemetry disabled; the logger class is restored.

    Raises:
        MissingExtraError: nncf or openvino is not installed.
    """
    openvino_core()  # before NNCF creates cores of its own
    kind = logging.getLoggerClass()
    with without_telemetry("nncf"):
        try:
            return import_extra("nncf", "openvino", "int8 by OpenVINO")
        finally:
            logging.setLoggerClass(kind)  # nncf sets its own for all later loggers


def to_openvino(
    module: nn.Module,
    example: Tensor,
    *,
    dynamic_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (OUTPUT,),
) -> openvino.Model:
    """Convert `module`, in evaluation mode, to an OpenVINO model in float32.

    Args:
        example: an example input; height and width are fixed to it.
        dynamic_batch: dynamic batch size; otherwise that of the example.
        metadata: stored in the model's rt_info, under `inceptionnet`.
        outputs: names of what the module gives, one tensor or several.

    Shapes: example (N, C, H, W).

    Raises:
        MissingExtraError: openvino is not installed.
    """
    ov = import_openvino()
    program = to_program(module, example, dynamic_batch=dynamic_batch)
    with quietly():
        model: openvino.Model = ov.convert_model(program)
    model.set_friendly_name(type(module).__name__)  # the default is a counter
    model.reshape(ov.PartialShape([-1 if dynamic_batch else len(example), *example.shape[1:]]))
    model.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    for key, value in (metadata or {}).items():
        model.set_rt_info(value, [RT_INFO, key])
    return model


def save_float32(model: openvino.Model, path: Path) -> None:
    """Write a model whose layers are computed in float32 by default on every processor.

    OpenVINO computes in bfloat16 by default on processors that support it (float16 on GPUs), whatever the type of the
    weights, and a model cannot hold another INFERENCE_PRECISION_HINT. It can mark layers, so each is marked. The marks
    get lost where OpenVINO replaces a layer when it compiles. It does so with every product of matrices, so these are
    written as 1×1 convolutions, which stay; and with max pools that also give indices, so these are written as pools of
    the first operator set, which do not.

    Args:
        model: from `to_openvino`; modified.

    Raises:
        RuntimeError: the file cannot be written.
    """
    _products_as_convolutions(model)
    _pools_without_indices(model)
    import_openvino().save_model(model, path, compress_to_fp16=False)
    tree = ElementTree.parse(path)
    fixed = {layer.get("id") for layer in tree.iterfind("layers/layer[@type='Const']")}
    computed = {edge.get("to-layer") for edge in tree.iterfind("edges/edge") if edge.get("from-layer") not in fixed}
    for layer in tree.iterfind("layers/layer"):
        if layer.get("id") not in computed:  # a marked function of constants would be computed at every inference
            continue
        marks = layer.find("rt_info")
        if marks is None:
            marks = ElementTree.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, marks)
        for attributes in _FLOAT32:
            ElementTree.SubElement(marks, "attribute", attributes)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _products_as_convolutions(model: openvino.Model) -> None:
    """Replace each x Wᵀ by a convolution of x as an image of one pixel."""
    ov = import_openvino()
    ops = import_module("openvino.opset13")
    for product in model.get_ordered_ops():
        weight = product.input_value(1).get_node() if product.get_type_name() == "MatMul" else None
        if weight is None or weight.get_type_name() != "Constant" or not product.get_attributes()["transpose_b"]:
            continue
        pixel = ops.reshape(product.input_value(0), [0, 0, 1, 1], special_zero=True)
        kernel = ov.op.Constant(weight.data[:, :, None, None])
        convolved = ops.convolution(pixel, kernel, strides=[1, 1], pads_begin=[0, 0], pads_end=[0, 0], dilations=[1, 1])
        flat = ops.reshape(convolved, [0, 0], special_zero=True)
        _replace(product, flat)


def _pools_without_indices(model: openvino.Model) -> None:
    """Replace each max pool that rounds down by one of the first operator set; those that round up stay by themselves.

    torch's rounding up, which drops a window that begins in the padding, is not in the first operator set.
    """
    ops = import_module("openvino.opset1")
    for pool in model.get_ordered_ops():
        about = pool.get_attributes() if pool.get_type_name() == "MaxPool" else {}
        if about.get("rounding_type") != "floor" or set(about.get("dilations", ())) != {1}:
            continue
        plain = ops.max_pool(
            pool.input_value(0), about["strides"], about["pads_begin"], about["pads_end"], about["kernel"], "floor"
        )
        _replace(pool, plain)


def _replace(old: openvino.Node, new: openvino.Node) -> None:
    """Put `new` in the place of `old`, of which only the first output is used, under its names."""
    new.set_friendly_name(old.get_friendly_name())
    new.output(0).get_tensor().set_names(old.output(0).get_tensor().get_names())
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(new.output(0))
