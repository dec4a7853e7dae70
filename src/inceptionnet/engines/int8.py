"""Post-training quantisation to int8: a quarter of the size, faster, with nearly the same outputs.

Weights are quantised per output channel, activations per tensor, with ranges from the minimum to the maximum over the
calibration images. NNCF's defaults (averaged ranges, bias correction) gave worse accuracy for the networks of this
package (benchmarks/) and are turned off.
"""

from __future__ import annotations

import io
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch import Tensor

from inceptionnet.engines.openvino import import_nncf
from inceptionnet.engines.program import quietly
from inceptionnet.engines.sessions import INPUT, import_onnxruntime
from inceptionnet.system.devices import cpu_says
from inceptionnet.system.extras import import_extra

if TYPE_CHECKING:
    import onnx
    import openvino

log: logging.Logger = logging.getLogger("inceptionnet")

CALIBRATED = 128
"""Maximum number of images to calibrate on; 300 were no better."""
FEW = 32
"""Fewer images give a warning."""
COMPARED = 2 * CALIBRATED
"""Maximum number of other images to compare on."""
MIN_AGREEMENT = 0.95
"""Minimum share of images with an unchanged predicted class."""

T = TypeVar("T")


def split_calibration(images: Sequence[T]) -> tuple[list[T], list[T]]:
    """Images to calibrate on (every third one) and to compare on (the others); a single image is used for both."""
    calibrating = list(images[::3])
    others = [image for i, image in enumerate(images) if i % 3]
    if len(calibrating) < FEW:
        log.warning("calibrating on only %d images; use 100 or more representative ones", len(calibrating))
    return calibrating, others or calibrating


WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
"""Values of ONEDNN_MAX_CPU_ISA that keep OpenVINO, too, from using VNNI."""


def weight_bits() -> int:
    """8, or 7 if 8 could overflow: x86 processors without VNNI instructions accumulate products in 16 bits."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return 8
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_VNNI:
        return 7
    flags = cpu_says("flags").split()
    return 8 if "avx512_vnni" in flags or "avx_vnni" in flags else 7


def quantised_onnx(model: onnx.ModelProto, images: Tensor, *, at_once: int = 1) -> onnx.ModelProto:
    """Quantise an ONNX model to int8 in QDQ format, with unsigned activations and signed weights.

    Args:
        model: from `to_onnx`; not modified.
        images: model inputs to calibrate on.
        at_once: the batch size of the model.

    Shapes: images (N, …).

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    import_extra("onnx", "onnx", "int8 by ONNX Runtime")
    import onnx

    quantization = import_onnxruntime("onnxruntime.quantization")
    base: type = quantization.CalibrationDataReader

    class Reader(base):  # type: ignore[misc]  # from an optional package
        def __init__(self) -> None:
            self.batches = _batches(images, at_once)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    copied = onnx.ModelProto()
    copied.CopyFrom(model)  # quantize_static modifies its input
    with TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            copied, path, Reader(), per_channel=True, reduce_range=weight_bits() == 7,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )  # fmt: skip
        made = onnx.load(path)
    del made.metadata_props[:]  # added by the quantiser, which also drops those of to_onnx
    onnx.helper.set_model_props(made, {entry.key: entry.value for entry in model.metadata_props})
    return made


def quantised_openvino(model: openvino.Model, images: Tensor, *, at_once: int = 1) -> openvino.Model:
    """Quantise an OpenVINO model to int8 with NNCF; arguments as for `quantised_onnx`.

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
    """All images in batches of `size`; the last batch is padded with the first images."""
    for start in range(0, len(images), size):
        places = np.arange(start, start + size) % len(images)
        yield images[places].contiguous().numpy()
