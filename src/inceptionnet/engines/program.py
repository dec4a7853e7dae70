"""Capturing a module with torch.export, from which files for other runtimes are converted."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

# Loggers that report optional packages and internals of torch; ONNX Runtime's quantisation uses the root logger.
_NOISY = (
    "", "torch.onnx._internal.exporter._registration", "torch.onnx", "torch.export", "onnxscript", "onnx_ir", "nncf",
)  # fmt: skip


def to_program(module: nn.Module, example: Tensor, *, dynamic_batch: bool = True) -> ExportedProgram:
    """Capture `module`, in evaluation mode, for inputs like `example`.

    Height and width are fixed to those of the example, since padding depends on them.

    Args:
        dynamic_batch: dynamic batch size; otherwise that of the example.

    Shapes: example (N, C, H, W), or as the module takes it.
    """
    if dynamic_batch and len(example) == 1:
        example = torch.cat([example, example])  # torch.export treats a dimension of 1 as constant
    shapes = ({0: Dim("batch")},) if dynamic_batch else None
    with quietly(), torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        # Python source locations: most of a small program's file, and possibly private.
        node.meta.pop("stack_trace", None)
    program.example_inputs = None  # would be saved in the file
    return program


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress warnings and log messages of torch and the converters; errors are still raised."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
