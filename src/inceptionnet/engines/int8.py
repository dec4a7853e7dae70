"""Eight-bit networks by quantisation after training: a quarter of the size, faster, and nearly the same numbers.

Weights get a scale for each output channel, activations one for each tensor, from the least to the greatest value met
on calibration images. NNCF would rather average these over images and correct biases; for the networks of this
package both gave worse numbers (benchmarks/), so it is told not to.
"""

from __future__ import annotations

import io
import logging
import platform
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch import Tensor

from inceptionnet.devices import cpu_says
from inceptionnet.engines.onnx import INPUT, import_onnxruntime
from inceptionnet.engines.openvino import import_nncf
from inceptionnet.engines.program import quietly
from inceptionnet.errors import missing_extra

if TYPE_CHECKING:
    import onnx
    import openvino

log = logging.getLogger("inceptionnet")

CALIBRATED = 128
"""Images to calibrate on where there are more; with 300 the numbers were no better."""
FEW = 32
"""Fewer images are worth a warning."""
COMPARED = 2 * CALIBRATED
"""Others to compare on, at most."""
LEAST_AGREEMENT = 0.95
"""Share of the images for which the first class stays what it was, else the network counts as spoilt."""

T = TypeVar("T")


def dealt(images: Sequence[T]) -> tuple[list[T], list[T]]:
    """Images to calibrate on, every third one, and the others, to compare on; a single image does both."""
    calibrating = list(images[::3])
    others = [image for i, image in enumerate(images) if i % 3]
    if len(calibrating) < FEW:
        log.warning(
            "calibrating on %d images, which is few; 100 or more, of every kind, serve better", len(calibrating)
        )
    return calibrating, others or calibrating


def weight_bits() -> int:
    """8; or 7 where 8 could overflow: an x86 processor without VNNI instructions adds products in 16 bits."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return 8
    flags = cpu_says("flags").split()
    return 8 if "avx512_vnni" in flags or "avx_vnni" in flags else 7


def quantised_onnx(model: onnx.ModelProto, images: Tensor, *, at_once: int = 1) -> onnx.ModelProto:
    """An ONNX model in 8 bits, with scales beside the float operators (QDQ); activations unsigned, weights signed.

    Args:
        model: from `to_onnx`; stays as it is.
        images: as the model takes them, to calibrate on.
        at_once: the number of images that the model takes.

    Shapes: images (N, …).

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise missing_extra("onnx", "onnx", "int8 by ONNX Runtime") from None
    quantization = import_onnxruntime("onnxruntime.quantization")
    base: type = quantization.CalibrationDataReader

    class Reader(base):  # type: ignore[misc]  # of a package that need not be installed
        def __init__(self) -> None:
            self.batches = _batches(images, at_once)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    copied = onnx.ModelProto()
    copied.CopyFrom(model)  # what is given is taken to pieces
    with TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            copied, path, Reader(), per_channel=True, reduce_range=weight_bits() == 7,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )  # fmt: skip
        made = onnx.load(path)
    del made.metadata_props[:]  # that it was quantised; to_onnx's own went the same way
    onnx.helper.set_model_props(made, {entry.key: entry.value for entry in model.metadata_props})
    return made


def quantised_openvino(model: openvino.Model, images: Tensor, *, at_once: int = 1) -> openvino.Model:
    """An OpenVINO model in 8 bits, by NNCF; the arguments as for `quantised_onnx`.

    Shapes: images (N, …).

    Raises:
        MissingExtraError: openvino or nncf is not installed.
    """
    nncf, ranges = import_nncf(), import_module("nncf.quantization.range_estimator")
    batches = list(_batches(images, at_once))
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.DISABLE if weight_bits() == 8 else nncf.OverflowFix.ENABLE,
        disable_bias_correction=True,
        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
    )
    with quietly(), redirect_stdout(io.StringIO()):  # its progress bars
        made: openvino.Model = nncf.quantize(
            model, nncf.Dataset(batches), subset_size=len(batches), preset=nncf.QuantizationPreset.MIXED,
            advanced_parameters=advanced,
        )  # fmt: skip
    return made


def _batches(images: Tensor, size: int) -> Iterator[np.ndarray]:
    """All images, so many at once; the last batch is filled up with the first images again."""
    for start in range(0, len(images), size):
        places = np.arange(start, start + size) % len(images)
        yield images[places].contiguous().numpy()
