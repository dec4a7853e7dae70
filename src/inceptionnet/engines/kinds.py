"""Export formats: how each file is written, run, and its metadata read.

Every file has these metadata keys, with JSON values:

network        name of the network
configuration  arguments of `create_model`
classes        class names in the order of the logits; two for one logit with sigmoid, which is the second class against
               the first; empty without a classifier
activation     softmax (one class an image) or sigmoid (of each logit by itself)
preprocessing  `Preprocessing.to_dict`
input          layout (NCHW or NHWC), type (float32 or uint8), color, and batch (null: dynamic batch size)
output         logits or features
precision      fp32 or int8
quantisation   int8 only: images (number of calibration images) and weight_bits (8: for ARM and x86 with VNNI; 7: for
               all processors, written on an older x86)
provenance     what is known about the weights: data, accuracy, licence …
source         the file that was exported
version        version of this package

They are stored as metadata_props (ONNX), in the section `inceptionnet` of rt_info (OpenVINO), and as extra files
(torch.export).
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor, nn

from inceptionnet.engines.int8 import quantised_onnx, quantised_openvino
from inceptionnet.engines.onnx import INPUT, OUTPUT, import_onnxruntime, to_onnx
from inceptionnet.engines.openvino import (
    RT_INFO,
    import_nncf,
    import_openvino,
    openvino_core,
    save_float32,
    to_openvino,
)
from inceptionnet.engines.program import quietly, to_program
from inceptionnet.errors import ConfigurationError, WeightsError, listed, missing_extra, nearest
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import SETTINGS_BYTES, WEIGHTS_BYTES, UnfitFile, check_fit, contents, from_json
from inceptionnet.system.zips import Zip
from inceptionnet.weights import load_model, read_record
from inceptionnet.weights.metadata import check_export

KEYS = (
    "network", "configuration", "classes", "activation", "preprocessing", "input", "output", "precision",
    "quantisation", "provenance", "source", "version",
)  # fmt: skip

Runner: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""A batch of inputs → a batch of outputs."""


@dataclass(frozen=True)
class Graph:
    """The input of a file writer."""

    module: nn.Module
    example: Tensor
    """An example input."""
    dynamic_batch: bool
    """Dynamic batch size; otherwise that of the example."""
    metadata: Mapping[str, str]
    calibration: Tensor | None = None
    """For int8: inputs to calibrate on."""

    @property
    def at_once(self) -> int:
        """Batch size for calibration."""
        return 1 if self.dynamic_batch else len(self.example)


@dataclass(frozen=True)
class Kind:
    """One export format."""

    name: str
    write: Callable[[Graph, Path], None] | None
    """None: written by `save_weights`."""
    run: Callable[[Path], Runner]
    metadata: Callable[[Path], Mapping[str, Any]]
    needs: tuple[str, ...] = ()
    extra: str = ""
    int8: tuple[str, ...] = ()
    """Packages that int8 needs; empty: int8 is not supported."""
    by_default: Callable[[Path], Runner] | None = None
    """`run` with all settings of the runtime left at their defaults, if that is not the same."""

    def check_imports(self, *, int8: bool = False) -> None:
        """Raises: MissingExtraError if a required package is not installed, or cannot be imported."""
        self.check_installed(int8=int8)
        importers = {"openvino": import_openvino, "nncf": import_nncf, "onnxruntime": import_onnxruntime}
        for package in self.needs + self.int8 * int8:
            if package in importers:
                importers[package]()
            else:
                import_extra(package, self.extra, f"exporting to {self.name}")

    def check_installed(self, *, int8: bool = False) -> None:
        """Raises: MissingExtraError if a required package is not installed."""
        if missing := [package for package in self.needs + self.int8 * int8 if not _installed(package)]:
            raise missing_extra(" and ".join(missing), self.extra, f"exporting to {self.name}")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # in sys.modules without a spec
        return False


def kind_of(path: Path) -> Kind:
    """The format selected by a file extension. Raises: ConfigurationError for an unknown one."""
    if path.suffix not in KINDS:
        raise ConfigurationError(f"{path}: expected a file ending in {' '.join(KINDS)}; {nearest(path.suffix, KINDS)}")
    return KINDS[path.suffix]


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of an exported file, by the keys above; a .safetensors file has no source and version.

    Raises:
        ConfigurationError: an unknown file extension.
        WeightsError: no such file, or one that was not written by this package.
        MissingExtraError: the extra for this format is not installed.
    """
    path = Path(path)
    kind = kind_of(path)
    kind.check_installed()
    try:
        check_fit(path, WEIGHTS_BYTES)
        if path.suffix == ".xml" and (values := path.with_suffix(".bin")).exists():
            check_fit(values, WEIGHTS_BYTES)
    except UnfitFile as error:
        raise WeightsError(
            f"{error.filename}: expected a file of {kind.name}, got {error.strerror}; give the file itself"
        ) from None
    except OSError:
        pass  # the reader says it
    try:
        found = kind.metadata(path)
    except WeightsError:
        raise
    except Exception as error:  # each reader raises its own types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(
            f"{path}: expected a valid {kind.name} file, got one that cannot be read: {reason}; export it again"
        ) from None
    if missing := [key for key in ("network", "configuration", "preprocessing") if key not in found]:
        raise WeightsError(
            f"{path}: expected metadata with {listed(missing, ordered=True, last='and')}, got none; write it with "
            "inceptionnet export"
        )
    found = {key: found[key] for key in KEYS if key in found}
    try:
        check_export(found)
    except ValueError as error:
        raise WeightsError(f"{path}: its metadata cannot be used ({error}); export it again") from None
    return found


def _write_onnx(graph: Graph, path: Path) -> None:
    import onnx

    model = to_onnx(graph.module, graph.example, dynamic_batch=graph.dynamic_batch, metadata=graph.metadata)
    if graph.calibration is not None:
        model = quantised_onnx(model, graph.calibration, at_once=graph.at_once)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _run_onnx(path: Path) -> Runner:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run([OUTPUT], {INPUT: x})[0]


def _onnx_metadata(path: Path) -> dict[str, Any]:
    import onnx

    return {
        entry.key: from_json(entry.value)
        for entry in onnx.load(path, load_external_data=False).metadata_props
        if entry.key in KEYS
    }


def _write_openvino(graph: Graph, path: Path) -> None:
    model = to_openvino(graph.module, graph.example, dynamic_batch=graph.dynamic_batch, metadata=graph.metadata)
    if graph.calibration is not None:
        model = quantised_openvino(model, graph.calibration, at_once=graph.at_once)
    try:
        if graph.calibration is None:
            save_float32(model, path)
        else:
            import_openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(str(error)) from None


def _run_openvino(path: Path) -> Runner:
    # An int8 file has layers that OpenVINO computes in bfloat16 by default on processors that support it.
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled(x)[OUTPUT]


def _run_openvino_by_default(path: Path) -> Runner:
    compiled = openvino_core().compile_model(path)
    return lambda x: compiled(x)[OUTPUT]


def _openvino_metadata(path: Path) -> dict[str, Any]:
    section = ElementTree.fromstring(contents(path, SETTINGS_BYTES)).find(f"rt_info/{RT_INFO}")
    entries = {} if section is None else {entry.tag: entry.get("value", "null") for entry in section}
    return {key: from_json(value) for key, value in entries.items() if key in KEYS}


def _write_program(graph: Graph, path: Path) -> None:
    program = to_program(graph.module, graph.example, dynamic_batch=graph.dynamic_batch)
    # Written to memory first: torch's own writer aborts the process if the disk is full.
    held = io.BytesIO()
    with quietly():
        torch.export.save(program, held, extra_files=dict(graph.metadata))
    with held.getbuffer() as view:  # released before `held` is, which Python 3.13 asks for
        path.write_bytes(view)


def _run_program(path: Path) -> Runner:
    with quietly():
        module = torch.export.load(path).module()

    def run(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    return run


def _program_metadata(path: Path) -> dict[str, Any]:
    """Read directly from the archive: torch.export.load would also load the weights, and unpickle."""
    with Zip(path) as archive:
        held = {PurePosixPath(one.filename).name: one for one in archive.infolist() if "/extra/" in one.filename}
        if any(one.file_size > SETTINGS_BYTES for key, one in held.items() if key in KEYS):
            raise ValueError(f"metadata of more than {SETTINGS_BYTES} bytes")
        return {key: from_json(archive.read(one)) for key, one in held.items() if key in KEYS}


def _run_weights(path: Path) -> Runner:
    model = load_model(path).eval()

    def run(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    return run


def _weights_metadata(path: Path) -> dict[str, Any]:
    record = read_record(path)
    return {
        "network": record.configuration.name,
        "configuration": asdict(record.configuration),
        "classes": list(record.classes),
        "activation": record.configuration.activation,
        "preprocessing": record.preprocessing.to_dict(),
        "input": input_of(raw=False, batch=None),
        "output": "logits" if record.classes else "features",
        "precision": "fp32",
        "provenance": dict(record.provenance),
    }


def input_of(*, raw: bool, batch: int | None) -> dict[str, Any]:
    """The metadata `input`; `raw`: uint8 images, else normalised input."""
    layout, kind = ("NHWC", "uint8") if raw else ("NCHW", "float32")
    return {"layout": layout, "type": kind, "color": "RGB", "batch": batch}


KINDS = {
    ".onnx": Kind(
        "ONNX", _write_onnx, _run_onnx, _onnx_metadata, ("onnx", "onnxscript", "onnxruntime"), "onnx", ("onnxruntime",)
    ),
    ".pt2": Kind("torch.export", _write_program, _run_program, _program_metadata),
    ".safetensors": Kind("inceptionnet", None, _run_weights, _weights_metadata),
    ".xml": Kind(
        "OpenVINO",
        _write_openvino,
        _run_openvino,
        _openvino_metadata,
        ("openvino",),
        "openvino",
        ("nncf",),
        _run_openvino_by_default,
    ),
}
"""By file extension."""
