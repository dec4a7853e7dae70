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
embedding      number of values of the second output, `embedding`: the pooled features before the classifier; absent:
               there is no such output
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

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from inceptionnet.engines.sessions import (
    OUTPUT,
    import_onnxruntime,
    import_openvino,
    onnx_metadata,
    openvino_metadata,
    run_onnx,
    run_openvino,
    run_openvino_by_default,
)
from inceptionnet.errors import ConfigurationError, MissingExtraError, WeightsError, listed, missing_extra, nearest
from inceptionnet.system.extras import import_extra, needing_torch
from inceptionnet.system.opening import SETTINGS_BYTES, WEIGHTS_BYTES, UnfitFile, check_fit, from_json
from inceptionnet.system.zips import Zip
from inceptionnet.weights.metadata import check_export

if TYPE_CHECKING:
    from torch import Tensor, nn

KEYS = (
    "network", "configuration", "classes", "activation", "preprocessing", "input", "output", "embedding",
    "precision", "quantisation", "provenance", "source", "version",
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
    outputs: tuple[str, ...] = (OUTPUT,)
    """Names of what the module gives, one tensor or several."""

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
    embeds: bool = False
    """Whether a file of it with a classifier has the embedding as a second output; its runner is then a `Session`."""

    def check_imports(self, *, int8: bool = False) -> None:
        """Raises: MissingExtraError if a required package is not installed, or cannot be imported."""
        self.check_installed(int8=int8)
        importers: dict[str, Callable[[], object]] = {
            "openvino": import_openvino,
            "nncf": _import_nncf,
            "onnxruntime": import_onnxruntime,
        }
        for package in self.needs + self.int8 * int8:
            if package in importers:
                importers[package]()
            else:
                import_extra(package, self.extra, f"exporting to {self.name}")

    def check_installed(self, *, int8: bool = False) -> None:
        """Raises: MissingExtraError if a required package is not installed."""
        if missing := [package for package in self.needs + self.int8 * int8 if not _installed(package)]:
            raise missing_extra(" and ".join(missing), self.extra, f"exporting to {self.name}")


def _import_nncf() -> None:
    from inceptionnet.engines.openvino import import_nncf

    import_nncf()


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # in sys.modules without a spec
        return False


def kind_of(path: Path) -> Kind:
    """The format selected by a file extension. Raises: ConfigurationError for an unknown one."""
    if path.suffix not in KINDS:
        close = nearest(path.suffix, KINDS)
        raise ConfigurationError(
            f"{path}: expected a file ending in {' '.join(KINDS)}{f'; {close}' if close.startswith('did') else ''}"
        )
    return KINDS[path.suffix]


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of an exported file, by the keys above; a .safetensors file has no source and version.

    Raises:
        ConfigurationError: an unknown file extension.
        WeightsError: no such file, or one that was not written by this package.
        MissingExtraError: a .safetensors file without torch.
    """
    path = Path(path)
    kind = kind_of(path)
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
    except (WeightsError, MissingExtraError):
        raise
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: expected a file of {kind.name}, got {error.strerror}; name one that export wrote"
        ) from None
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


def _onnx_metadata(path: Path) -> dict[str, Any]:
    return _values(onnx_metadata(path))


def _openvino_metadata(path: Path) -> dict[str, Any]:
    return _values(openvino_metadata(path))


def _values(texts: Mapping[str, str | bytes]) -> dict[str, Any]:
    return {key: from_json(text) for key, text in texts.items() if key in KEYS}


def _program_metadata(path: Path) -> dict[str, Any]:
    """Read directly from the archive: torch.export.load would also load the weights, and unpickle."""
    with Zip(path) as archive:
        held = {PurePosixPath(one.filename).name: one for one in archive.infolist() if "/extra/" in one.filename}
        if any(one.file_size > SETTINGS_BYTES for key, one in held.items() if key in KEYS):
            raise ValueError(f"metadata of more than {SETTINGS_BYTES} bytes")
        return _values({key: archive.read(one) for key, one in held.items() if key in KEYS})


def _weights_metadata(path: Path) -> dict[str, Any]:
    with needing_torch(f"reading {path}"):
        from inceptionnet.weights.reading import read_record

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


def _by_torch(name: str) -> Callable[..., Any]:
    """A function of writing.py, which is imported where it is called: it needs torch."""

    def call(*args: Any) -> Any:
        from inceptionnet.engines import writing

        return getattr(writing, name)(*args)

    return call


def input_of(*, raw: bool, batch: int | None) -> dict[str, Any]:
    """The metadata `input`; `raw`: uint8 images, else normalised input."""
    layout, kind = ("NHWC", "uint8") if raw else ("NCHW", "float32")
    return {"layout": layout, "type": kind, "color": "RGB", "batch": batch}


KINDS = {
    ".onnx": Kind(
        "ONNX",
        _by_torch("write_onnx"),
        run_onnx,
        _onnx_metadata,
        ("onnx", "onnxscript", "onnxruntime"),
        "onnx",
        ("onnxruntime",),
        embeds=True,
    ),
    ".pt2": Kind("torch.export", _by_torch("write_program"), _by_torch("run_program"), _program_metadata),
    ".safetensors": Kind("inceptionnet", None, _by_torch("run_weights"), _weights_metadata),
    ".xml": Kind(
        "OpenVINO",
        _by_torch("write_openvino"),
        run_openvino,
        _openvino_metadata,
        ("openvino",),
        "openvino",
        ("nncf",),
        run_openvino_by_default,
        embeds=True,
    ),
}
"""By file extension."""
