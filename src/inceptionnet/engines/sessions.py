"""ONNX Runtime and OpenVINO: importing them, loading an exported file, and reading its metadata; without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from inceptionnet.system.devices import cores_allowed
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import SETTINGS_BYTES, contents, opened
from inceptionnet.system.protobuf import fields_of

if TYPE_CHECKING:
    import openvino

INPUT, OUTPUT, EMBEDDING = "images", "logits", "embedding"
"""The names of the input and the outputs, in ONNX and OpenVINO."""
RT_INFO = "inceptionnet"
"""The section of rt_info with the metadata, in OpenVINO."""
_METADATA_PROPS = 14
"""The field of ONNX's ModelProto with the metadata: messages of a key (1) and a value (2)."""
_TELEMETRY = "openvino_telemetry"


class Session:
    """An exported file that its runtime has loaded.

    Shapes: the file's input → logits (N, classes), or features (N, C) without a classifier.
    """

    def __init__(self, compute: Callable[[npt.NDArray[Any], Sequence[str]], list[Any]], embeds: bool) -> None:
        self._compute = compute
        self.embeds = embeds

    def __call__(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The first output."""
        (logits,) = self._compute(x, [OUTPUT])
        return logits  # type: ignore[no-any-return]

    def both(self, x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Logits and embedding, (N, C), of a file that `embeds`."""
        logits, embedding = self._compute(x, [OUTPUT, EMBEDDING])
        return logits, embedding


def import_onnxruntime(module: str = "onnxruntime", extra: str = "onnx") -> ModuleType:
    """Import onnxruntime, or a module of it, with telemetry disabled.

    Otherwise importing it writes an identifier and a database of events to the home folder and sends reports. If the
    environment variable is set already, it is respected.

    Args:
        extra: what to install where it is missing: `onnx`, or `onnxruntime` where exported files are run only.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_extra(module, extra, "ONNX Runtime")


def import_openvino(extra: str = "openvino") -> ModuleType:
    """Import openvino with telemetry disabled.

    Importing openvino writes an identifier to the home folder and sends reports, unless openvino_telemetry cannot be
    imported; so that package is hidden during the first import of openvino.

    Args:
        extra: what to install where it is missing: `openvino`, or `openvino-runtime` where exported files are run only.

    Raises:
        MissingExtraError: it is not installed.
    """
    with without_telemetry("openvino"):
        return import_extra("openvino", extra, "OpenVINO")


@contextmanager
def without_telemetry(package: str) -> Iterator[None]:
    """Hide openvino_telemetry during the first import of a package."""
    hide = package not in sys.modules and _TELEMETRY not in sys.modules
    if hide:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes the import fail
    try:
        yield
    finally:
        if hide:
            del sys.modules[_TELEMETRY]


@cache
def openvino_core() -> openvino.Core:
    """The only OpenVINO core of this process; it compiles all models and is never destroyed.

    The CPU plugin of each core installs its own stack for signal handlers and restores the previous one when it is
    destroyed. If two cores are not destroyed in reverse order, a freed stack is restored, and the next signal handled
    on it, such as SIGCHLD when an image worker ends, crashes the process (seen in 2026.4.1).

    Raises:
        MissingExtraError: openvino is not installed.
    """
    core: openvino.Core = import_openvino().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return core


def run_onnx(path: Path) -> Session:
    """A file by ONNX Runtime, in float32. Raises: MissingExtraError, or what ONNX Runtime raises."""
    onnxruntime = import_onnxruntime(extra="onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if (cores := cores_allowed()) < (os.cpu_count() or 1):  # by itself it starts a thread for each of the machine's
        options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    embeds = EMBEDDING in [output.name for output in session.get_outputs()]
    return Session(lambda x, names: session.run(names, {INPUT: x}), embeds)


def run_openvino(path: Path) -> Session:
    """A file by OpenVINO, in float32. Raises: MissingExtraError, or what OpenVINO raises."""
    # An int8 file has layers that OpenVINO computes in bfloat16 by default on processors that support it.
    return _compiled(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run_openvino_by_default(path: Path) -> Session:
    """A file by OpenVINO with all settings at their defaults. Raises: as `run_openvino`."""
    return _compiled(path)


def _compiled(path: Path, *how: Any) -> Session:
    import_openvino("openvino-runtime")  # raises with this extra; the core is the one of the process
    compiled = openvino_core().compile_model(path, *how)
    embeds = any(EMBEDDING in output.get_names() for output in compiled.outputs)

    def compute(x: npt.NDArray[Any], names: Sequence[str]) -> list[Any]:
        found = compiled(x)
        return [found[name] for name in names]

    return Session(compute, embeds)


def onnx_metadata(path: Path) -> dict[str, str]:
    """The metadata_props of an .onnx file, of which nothing else is read. Raises: OSError, ValueError."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        entries = [
            [next(fields_of(BytesIO(entry), len(entry), number, len(entry)), b"") for number in (1, 2)]
            for entry in fields_of(file, size, _METADATA_PROPS, SETTINGS_BYTES)
        ]
    return {key.decode(): value.decode() for key, value in entries}


def openvino_metadata(path: Path) -> dict[str, str]:
    """The section of an .xml file that this package wrote. Raises: OSError, or what is no XML."""
    from xml.etree import ElementTree

    section = ElementTree.fromstring(contents(path, SETTINGS_BYTES)).find(f"rt_info/{RT_INFO}")
    return {} if section is None else {entry.tag: entry.get("value", "null") for entry in section}
