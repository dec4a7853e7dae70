"""A module as an OpenVINO model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from inceptionnet.engines.onnx import INPUT, OUTPUT
from inceptionnet.engines.program import quietly, to_program
from inceptionnet.errors import missing_extra

if TYPE_CHECKING:
    import openvino

RT_INFO = "inceptionnet"
"""The section of a model's rt_info that holds the metadata."""

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """The package openvino, without its telemetry.

    Importing openvino writes an identifier into the home folder and reports to its makers, unless openvino_telemetry is
    not there. So it is not there while openvino is imported for the first time.

    Raises:
        MissingExtraError: it is not installed.
    """
    with _without_telemetry("openvino"):
        try:
            return import_module("openvino")
        except ImportError:
            raise missing_extra("openvino", "openvino", "OpenVINO") from None


@cache
def openvino_core() -> openvino.Core:
    """The one OpenVINO core of this process, which compiles all models and never goes.

    Each core's CPU plugin puts up a stack of its own for signal handlers and, when it goes, puts back the one that it
    found. Of two that do not go in reverse order the second puts back one that is no more, and the next signal with
    a handler there, such as SIGCHLD when a process that reads images ends, kills this process (seen in 2026.4.1).

    Raises:
        MissingExtraError: openvino is not installed.
    """
    core: openvino.Core = import_openvino().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # the plugin is there from now on
    return core


def import_nncf() -> ModuleType:
    """The package nncf, which quantises OpenVINO models, without its telemetry; every other logger stays as it was.

    Raises:
        MissingExtraError: it or openvino is not installed.
    """
    openvino_core()  # before NNCF makes some of its own
    kind = logging.getLoggerClass()
    with _without_telemetry("nncf"):
        try:
            return import_module("nncf")
        except ImportError:
            raise missing_extra("nncf", "openvino", "int8 by OpenVINO") from None
        finally:
            logging.setLoggerClass(kind)  # it sets its own, for all loggers made from then on


@contextmanager
def _without_telemetry(package: str) -> Iterator[None]:
    """For the first import of a package: openvino_telemetry is then not there for it."""
    hide = package not in sys.modules and _TELEMETRY not in sys.modules
    if hide:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how Python itself marks what cannot be imported
    try:
        yield
    finally:
        if hide:
            del sys.modules[_TELEMETRY]


def to_openvino(
    module: nn.Module, example: Tensor, *, dynamic_batch: bool = True, metadata: Mapping[str, str] | None = None
) -> openvino.Model:
    """`module`, in evaluation mode, as an OpenVINO model in float32.

    Args:
        example: an input; its height and width become the model's.
        dynamic_batch: for any number of images, else for as many as the example has.
        metadata: goes into the model's rt_info, below `inceptionnet`.

    Shapes: example (N, C, H, W).

    Raises:
        MissingExtraError: openvino is not installed.
    """
    ov = import_openvino()
    program = to_program(module, example, dynamic_batch=dynamic_batch)
    with quietly():
        model: openvino.Model = ov.convert_model(program)
    model.set_friendly_name(type(module).__name__)  # else it is the number of models made so far
    model.reshape(ov.PartialShape([-1 if dynamic_batch else len(example), *example.shape[1:]]))
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    for key, value in (metadata or {}).items():
        model.set_rt_info(value, [RT_INFO, key])
    return model
