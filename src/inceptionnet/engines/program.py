"""A module as the program that torch.export makes of it: what every file for another runtime is converted from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

# They name each package that is not installed, and tell people to change torch's own code.
# ONNX Runtime's quantisation speaks through the root.
_TALKATIVE = (
    "", "torch.onnx._internal.exporter._registration", "torch.onnx", "torch.export", "onnxscript", "onnx_ir", "nncf",
)  # fmt: skip


def to_program(module: nn.Module, example: Tensor, *, dynamic_batch: bool = True) -> ExportedProgram:
    """What `module`, in evaluation mode, computes for inputs like `example`.

    Height and width are those of the example: padding follows from them.

    Args:
        dynamic_batch: for any number of images, else for as many as the example has.

    Shapes: example (N, C, H, W), or as the module takes it.
    """
    if dynamic_batch and len(example) == 1:
        example = torch.cat([example, example])  # torch.export takes a 1 for a constant
    shapes = ({0: Dim("batch")},) if dynamic_batch else None
    with quietly(), torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        # Where in which Python file it comes from: most of a small program's file, and nobody else's business.
        node.meta.pop("stack_trace", None)
    program.example_inputs = None  # would be saved too, images of zeros
    return program


@contextmanager
def quietly() -> Iterator[None]:
    """No warnings and log lines of torch and the converters, which are about their own insides; errors still raise."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
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
