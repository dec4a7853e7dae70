"""Exporting a network to ONNX, OpenVINO, torch.export or safetensors, with its outputs verified before it is saved."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EISDIR
from math import isfinite
from os import strerror
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.agreement import Agreement, Images, compare, load_images, low_agreement, random_images
from inceptionnet.engines.choice import check_precision
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.graph import graph_of
from inceptionnet.engines.int8 import CALIBRATED, COMPARED, MIN_AGREEMENT
from inceptionnet.engines.kinds import KINDS, Kind, kind_of, read_metadata
from inceptionnet.engines.runtimes import reason
from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.system.files import PART, make_folder_of, replacing
from inceptionnet.weights import WeightsFile, read_weights, save_weights

log: logging.Logger = logging.getLogger("inceptionnet")

TOLERANCE = 1e-4
"""Largest permitted difference of the logits, relative to the largest, for fp32."""
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    path: Path
    refused: str
    """The reason why it was not written, if the outputs differ; else empty."""
    kind: str
    size_bytes: int
    metadata: Mapping[str, Any]
    images: Images
    agreement: Agreement
    calibrated_on: Images | None = None

    @property
    def written(self) -> bool:
        """Whether the file was written; otherwise the path is unchanged."""
        return not self.refused

    @property
    def decode_errors(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of images that cannot be decoded."""
        return self.images.decode_errors + (self.calibrated_on.decode_errors if self.calibrated_on else ())


def export(
    source: str | Path | WeightsFile,
    destination: str | Path,
    *,
    with_preprocessing: bool = False,
    plain: bool = False,
    precision: str = "fp32",
    calibrate: Sequence[str] = (),
    batch_size: int | None = None,
    check: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    min_agreement: float = MIN_AGREEMENT,
) -> Exported:
    """Export a network to an ONNX (.onnx), OpenVINO (.xml), torch.export (.pt2) or weights file (.safetensors).

    The file is written to a temporary place, loaded, and compared with the network on images; it is moved to its
    destination only if the outputs agree. It has the main head only, or the pooled features of a network without
    classifier. An ONNX or OpenVINO file has these features as a second output, `embedding`, beside the `logits`.

    Args:
        source: a weights file of any known layout, a run folder or an address on the hub; or one that was opened.
        destination: the file extension selects the format; an existing file is replaced.
        with_preprocessing: the file takes cropped uint8 images (N, H, W, C), RGB, of the network's image size, and
            normalises them; otherwise it takes the network's input, float32 (N, C, H, W).
        plain: without the rewrites of `fused`; a weights file is never rewritten.
        precision: fp32, or int8 in an ONNX or OpenVINO file.
        calibrate: for int8, 100 or more representative images, anything that `open_images` opens. A third of them, at
            most 128, are used for calibration, the others, at most 256, for comparison unless `check` is given.
        batch_size: a fixed batch size; default: dynamic.
        check: images to compare on, anything that `open_images` opens; default: for fp32, random images.
        tolerance: for fp32, largest permitted difference of the logits, relative to the largest logit.
        min_agreement: for int8, the minimum share of images with an unchanged predicted class; without a classifier,
            the minimum explained variance of the features.

    Raises:
        ConfigurationError: an unknown file extension, a destination that cannot be written, or an option that the
            format does not support.
        MissingExtraError: the format needs an extra that is not installed.
        WeightsError: the weights cannot be read.
        DataError: none of the images can be read.
    """
    destination = Path(destination)
    kind = kind_of(destination)
    _check_options(destination, kind, with_preprocessing, batch_size)
    _check_precision(destination, kind, precision, calibrate, plain)
    with _beside(destination) as folder:
        read = source if isinstance(source, WeightsFile) else read_weights(source)
        prep = read.record.preprocessing
        calibrated_on, images = _calibrated_and_compared(prep, calibrate, check)
        model = read.model(aux=False).eval()
        made = folder / destination.name
        log.info("%s: converting %s", destination, read.record.configuration.name)
        with _writing(destination):
            if kind.write is None:
                record = read.record
                save_weights(model, made, classes=record.classes, preprocessing=prep, provenance=record.provenance)
            else:
                if calibrated_on:
                    log.info("%s: calibrating on %s", destination, calibrated_on)
                module = model if plain else fused(model, channels_last=False)
                embedding = model.head_hidden_size if kind.embeds and model.num_classes else None
                graph = graph_of(
                    module, read, calibrated_on, raw=with_preprocessing, batch_size=batch_size, embedding=embedding
                )
                kind.write(graph, made)
        log.info("%s: comparing on %s", destination, images)
        try:
            run = (kind.by_default or kind.run)(made)  # as others will run it
        except Exception as error:  # runtimes raise many types
            raise ConfigurationError(
                f"{destination}: not written: {kind.name} cannot run it on this processor ({reason(error)})"
            ) from None
        agreement = compare(model, run, images, prep, raw=with_preprocessing, batch_size=batch_size)
        metadata = read_metadata(made)
        files = sorted(folder.iterdir())  # the .bin of an .xml comes first
        size_bytes = sum(file.stat().st_size for file in files)
        refused = _refused(agreement, tolerance, min_agreement if calibrated_on else None)
        if not refused:
            with _writing(destination):
                _place(files, destination)
    return Exported(destination, refused, kind.name, size_bytes, metadata, images, agreement, calibrated_on)


def _refused(found: Agreement, tolerance: float, least: float | None) -> str:
    """The reason to refuse a file with these differences, or ""; `least` is the minimum agreement, None in fp32."""
    if least is None:
        if not found.logits <= tolerance:  # of NaN too
            return (
                f"expected logits within {tolerance:.2g} of the largest logit, got a difference of {found.logits:.2g}"
            )
        if found.embedding is not None and not found.embedding.difference <= tolerance:
            return (
                f"expected embeddings within {tolerance:.2g} of the largest value, got a difference of "
                f"{found.embedding.difference:.2g}"
            )
        return ""
    if not (isfinite(found.logits) and found.share >= least):
        return low_agreement("the network", found, least)
    if found.embedding is not None and not found.embedding.kept >= least:
        return (
            f"expected squared differences of the embeddings of at most {1 - least:.1%} of their squared values in "
            f"int8, got {1 - found.embedding.kept:.1%} on {number_of('image', found.images)}; calibrate on more "
            "images that are representative, or use fp32"
        )
    return ""


def _calibrated_and_compared(
    prep: Preprocessing, calibrate: Sequence[str], check: Sequence[str]
) -> tuple[Images | None, Images]:
    """The images to calibrate on (int8 only), and those to compare on."""
    if not calibrate:
        return None, load_images(check, prep) if check else random_images(prep)
    calibrating, others = load_images(calibrate, prep, CALIBRATED + COMPARED).split()
    return calibrating, load_images(check, prep, COMPARED) if check else others


def _check_options(destination: Path, kind: Kind, with_preprocessing: bool, batch_size: int | None) -> None:
    kind.check_imports()
    if batch_size is not None and batch_size < 1:
        raise ConfigurationError(f"batch_size is {batch_size!r}; expected a whole number, 1 or more, or none")
    if kind.write is None and (with_preprocessing or batch_size):
        option = "with_preprocessing" if with_preprocessing else "batch_size"
        raise ConfigurationError(f"{destination}: {option} needs a graph, which a weights file does not have; omit it")


def _check_precision(destination: Path, kind: Kind, precision: str, calibrate: Sequence[str], plain: bool) -> None:
    check_precision(precision, bool(calibrate))
    if precision not in PRECISIONS:
        raise ConfigurationError(f"{destination}: expected precision {' or '.join(PRECISIONS)}, got {precision}")
    if precision == "fp32":
        return
    if not kind.int8:
        able = " or ".join(ending for ending, other in KINDS.items() if other.int8)
        raise ConfigurationError(
            f"{destination}: expected {able} for int8, got a {kind.name} file; change the extension"
        )
    kind.check_imports(int8=True)
    if plain:
        raise ConfigurationError("plain: int8 needs batch norm folded; omit it")


@contextmanager
def _beside(destination: Path) -> Iterator[Path]:
    """A temporary folder next to `destination`, removed at the end with everything in it."""
    with _writing(destination):
        if destination.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))
        make_folder_of(destination)
        folder = TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}{PART}")
    with folder as name:
        yield Path(name)


@contextmanager
def _writing(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise ConfigurationError(f"{destination}: cannot be written: {reason}; give another path") from None


def _place(files: Sequence[Path], destination: Path) -> None:
    """Move the files of one export to their place, replacing existing ones; the one named `destination` is the last."""
    if len(files) > 1:
        # If the process is killed in between, a new .bin without .xml is better than one with the old .xml.
        destination.unlink(missing_ok=True)
    for file in files:
        with replacing(destination.with_name(file.name)) as temporary:
            os.replace(file, temporary)
