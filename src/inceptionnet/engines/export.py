"""A network as a file that other programs run, put in place only once its numbers have been found to be the same."""

from __future__ import annotations

import json
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

import numpy as np
import torch
from torch import Tensor, nn

import inceptionnet
from inceptionnet.data.augment import as_input
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.agreement import Agreement, Images, compare, drawn, given, spoilt
from inceptionnet.engines.choice import check_precision
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.int8 import CALIBRATED, COMPARED, LEAST_AGREEMENT, weight_bits
from inceptionnet.engines.kinds import KINDS, Graph, Kind, input_of, kind_of, read_metadata
from inceptionnet.errors import ConfigurationError
from inceptionnet.files import PART, replacing
from inceptionnet.weights import WeightsFile, read_weights, save_weights

log = logging.getLogger("inceptionnet")

TOLERANCE = 1e-4
"""Largest difference of the logits, as a share of the largest, with which a file still counts as the same."""
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Exported:
    """What became of an export."""

    path: Path
    refused: str
    """Why it was not written, so that the path is as it was; empty, where the numbers agree."""
    kind: str
    size_bytes: int
    metadata: Mapping[str, Any]
    images: Images
    agreement: Agreement
    calibrated_on: Images | None = None

    @property
    def written(self) -> bool:
        """Whether the file is there."""
        return not self.refused

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of images that cannot be decoded."""
        return self.images.left_out + (self.calibrated_on.left_out if self.calibrated_on else ())


class FromPixels(nn.Module):
    """A network with the normalisation of its input before it.

    Shapes: uint8 (N, H, W, C) → as the network gives.
    """

    def __init__(self, network: nn.Module, prep: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = (nn.Buffer(torch.tensor(values).view(-1, 1, 1) * 255) for values in (prep.mean, prep.std))

    def forward(self, pixels: Tensor) -> Tensor:
        """The numbers of `data.augment.normalise`, and on."""
        y: Tensor = self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        return y


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
    least_agreement: float = LEAST_AGREEMENT,
) -> Exported:
    """Write a network as an ONNX (.onnx), OpenVINO (.xml), torch.export (.pt2) or weights file (.safetensors).

    The file is written beside its place, loaded, and asked about images; it goes into its place only if it gives what
    the network gives. It has the main head only, or the pooled features of a network without classifier.

    Args:
        source: a weights file of any known layout, a run folder or an address on the hub; or one that was opened.
        destination: its ending says the kind of file; one that is there is replaced whole.
        with_preprocessing: the file takes uint8 images (N, H, W, C), RGB, cropped and of the network's size, and
            normalises them; else what the network takes, float32 (N, C, H, W).
        plain: without the rewrites of `fused`; a weights file is never rewritten.
        precision: fp32, or int8 in an ONNX or OpenVINO file.
        calibrate: images for int8, such as it will see, as `open_images` takes them: 100 or more. A third of them,
            at most 128, are calibrated on; on the others, at most 256, it is compared where `check` names none.
        batch_size: the only number of images that the file takes at once; left out, any number.
        check: images to compare on, as `open_images` takes them; left out, for fp32 ones drawn at random.
        tolerance: for fp32, largest difference of the logits as a share of the largest logit.
        least_agreement: for int8, least share of the images for which the first class stays what it was; without a
            classifier, of the features' variance that is kept.

    Raises:
        ConfigurationError: an unknown ending, a place that cannot be written, or an option that this kind lacks.
        MissingExtraError: the kind of file needs an extra that is not installed.
        WeightsError, DataError: the weights, or none of the images, can be read.
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
                kind.write(_graph(module, read, calibrated_on, raw=with_preprocessing, batch_size=batch_size), made)
        log.info("%s: comparing on %s", destination, images)
        agreement = compare(model, kind.run(made), images, prep, raw=with_preprocessing, batch_size=batch_size)
        metadata = read_metadata(made)
        files = sorted(folder.iterdir())  # the .bin of an .xml comes first
        size_bytes = sum(file.stat().st_size for file in files)
        refused = _refused(agreement, tolerance, least_agreement if calibrated_on else None)
        if not refused:
            with _writing(destination):
                _place(files, destination)
    return Exported(destination, refused, kind.name, size_bytes, metadata, images, agreement, calibrated_on)


def _refused(found: Agreement, tolerance: float, least: float | None) -> str:
    """Why a file with these numbers is not left, or nothing; in fp32 there is no least share."""
    if least is None:
        fine = found.logits <= tolerance  # False for what is no number
        return "" if fine else f"the logits differ by {found.logits:.2g} of the largest, more than {tolerance:.2g}"
    fine = isfinite(found.logits) and found.share >= least
    return "" if fine else spoilt("the network", found, least)


def _calibrated_and_compared(
    prep: Preprocessing, calibrate: Sequence[str], check: Sequence[str]
) -> tuple[Images | None, Images]:
    """Those to calibrate on, and those to compare on."""
    if not calibrate:
        return None, given(check, prep) if check else drawn(prep)
    calibrating, others = given(calibrate, prep, CALIBRATED + COMPARED).dealt()
    return calibrating, given(check, prep, COMPARED) if check else others


def _check_options(destination: Path, kind: Kind, with_preprocessing: bool, batch_size: int | None) -> None:
    kind.check_installed()
    if batch_size is not None and batch_size < 1:
        raise ConfigurationError(f"batch_size is {batch_size!r}; expected a whole number, 1 or more, or none")
    if kind.write is None and (with_preprocessing or batch_size):
        option = "with_preprocessing" if with_preprocessing else "batch_size"
        raise ConfigurationError(f"{destination}: a weights file holds no graph to put {option} into; leave it out")


def _check_precision(destination: Path, kind: Kind, precision: str, calibrate: Sequence[str], plain: bool) -> None:
    check_precision(precision, bool(calibrate))
    if precision not in PRECISIONS:
        raise ConfigurationError(f"{destination}: a file is in {' or '.join(PRECISIONS)}, got {precision}; choose one")
    if precision == "fp32":
        return
    if not kind.int8:
        able = " or ".join(ending for ending, other in KINDS.items() if other.int8)
        raise ConfigurationError(f"{destination}: a file of kind {kind.name} is in fp32; for int8 take {able}")
    kind.check_installed(int8=True)
    if plain:
        raise ConfigurationError(f"{destination}: int8 needs batch norm folded; leave plain out")


def _graph(
    module: nn.Module, read: WeightsFile, calibrated_on: Images | None, *, raw: bool, batch_size: int | None
) -> Graph:
    """What the file is written from; `raw`: from pixels on."""
    prep, calibration = read.record.preprocessing, None
    about = _about(read, input_of(raw=raw, batch=batch_size), calibrated_on)
    if raw:
        module = FromPixels(module, prep).eval()
        example = torch.zeros(batch_size or 2, prep.size_px, prep.size_px, prep.channels, dtype=torch.uint8)
    else:
        example = torch.zeros(batch_size or 2, prep.channels, prep.size_px, prep.size_px)
    if calibrated_on:
        pixels = calibrated_on.pixels
        calibration = torch.from_numpy(np.stack(pixels)) if raw else as_input(pixels, prep)
    return Graph(module, example, batch_size is None, about, calibration)


def _about(read: WeightsFile, takes: Mapping[str, Any], calibrated_on: Images | None) -> dict[str, str]:
    """The metadata, as kinds.py has it."""
    record = read.record
    about = {
        "network": record.configuration.name,
        "classes": record.classes,
        "preprocessing": record.preprocessing.to_dict(),
        "input": takes,
        "output": "logits" if record.classes else "features",
        "precision": "int8" if calibrated_on else "fp32",
        "provenance": dict(record.provenance),
        "source": read.report.source,
        "version": inceptionnet.__version__,
    }
    if calibrated_on:
        about["quantisation"] = {"images": len(calibrated_on.pixels), "weight_bits": weight_bits()}
    return {key: json.dumps(value) for key, value in about.items()}


@contextmanager
def _beside(destination: Path) -> Iterator[Path]:
    """A folder for what is not finished, in the folder of `destination`; it goes with all that is left in it."""
    with _writing(destination):
        if destination.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))
        folder = TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}{PART}")
    with folder as name:
        yield Path(name)


@contextmanager
def _writing(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise ConfigurationError(f"{destination}: cannot be written: {reason}; name another place") from None


def _place(files: Sequence[Path], destination: Path) -> None:
    """Move the files of one export, the one named `destination` last, over those that are there."""
    if len(files) > 1:
        # Killed between the two, a new .bin is better left without .xml than with the old one, which fits it badly.
        destination.unlink(missing_ok=True)
    for file in files:
        with replacing(destination.with_name(file.name)) as temporary:
            os.replace(file, temporary)
