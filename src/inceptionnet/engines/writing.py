"""What writes the export formats, and runs those that need torch; see kinds.py."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from inceptionnet.engines.int8 import quantised_onnx, quantised_openvino
from inceptionnet.engines.kinds import Graph
from inceptionnet.engines.onnx import to_onnx
from inceptionnet.engines.openvino import save_float32, to_openvino
from inceptionnet.engines.program import quietly, to_program
from inceptionnet.engines.sessions import import_openvino
from inceptionnet.weights import load_model


def write_onnx(graph: Graph, path: Path) -> None:
    """An .onnx file."""
    import onnx

    model = to_onnx(
        graph.module, graph.example, dynamic_batch=graph.dynamic_batch, metadata=graph.metadata, outputs=graph.outputs
    )
    if graph.calibration is not None:
        model = quantised_onnx(model, graph.calibration, at_once=graph.at_once)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def write_openvino(graph: Graph, path: Path) -> None:
    """An .xml file, with a .bin beside it."""
    model = to_openvino(
        graph.module, graph.example, dynamic_batch=graph.dynamic_batch, metadata=graph.metadata, outputs=graph.outputs
    )
    if graph.calibration is not None:
        model = quantised_openvino(model, graph.calibration, at_once=graph.at_once)
    try:
        if graph.calibration is None:
            save_float32(model, path)
        else:
            import_openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(str(error)) from None


def write_program(graph: Graph, path: Path) -> None:
    """A .pt2 file."""
    program = to_program(graph.module, graph.example, dynamic_batch=graph.dynamic_batch)
    # Written to memory first: torch's own writer aborts the process if the disk is full.
    held = io.BytesIO()
    with quietly():
        torch.export.save(program, held, extra_files=dict(graph.metadata))
    with held.getbuffer() as view:  # released before `held` is, which Python 3.13 asks for
        path.write_bytes(view)


def run_program(path: Path) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """A .pt2 file by torch."""
    with quietly():
        module = torch.export.load(path).module()

    def run(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    return run


def run_weights(path: Path) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """A weights file by torch."""
    model = load_model(path).eval()

    def run(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    return run
