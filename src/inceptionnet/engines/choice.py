"""`optimize`: run a network with a given engine, or with the fastest one whose outputs agree with the network.

The fastest engine depends on network, batch size and machine, so it is measured once and cached. The outputs of every
engine are compared with the network's own logits each time it is built: the largest difference of the logits in fp32,
and in lower precisions where no images are given; else the top-1 agreement on these.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from inceptionnet.data.splits import evenly_spaced
from inceptionnet.engines.agreement import to_calibrate
from inceptionnet.engines.builders import BUILDERS
from inceptionnet.engines.candidates import AUTO, Candidates
from inceptionnet.engines.fastest import fastest
from inceptionnet.engines.int8 import CALIBRATED, COMPARED, MIN_AGREEMENT, split_calibration
from inceptionnet.engines.runtimes import DTYPES, Engine, Target
from inceptionnet.engines.timing import noise
from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.devices import pick_device
from inceptionnet.weights import WeightsFile, read_weights

log: logging.Logger = logging.getLogger("inceptionnet")

AUTO_AGREEMENT = 0.99
"""Minimum share of images with an unchanged predicted class, in the precision that auto chooses."""
CHECKED = 4
"""Maximum number of images of noise to compare on."""


def optimize(
    model: InceptionNet | str | Path,
    engine: str = AUTO,
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    calibrate: Tensor | str | Path | Sequence[str | Path] | None = None,
    agreement: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    size_px: int | None = None,
    remeasure: bool = False,
) -> Engine:
    """Prepare a network for fast inference on this machine; returns a callable with the network's input and output.

    Its `about` contains the engine and the reason for it, the skipped engines with reasons, and the difference from the
    network's own logits. The network is not modified; later changes to it do not affect the engine.

    Args:
        model: a network, or a weights file as for `load_model`.
        engine: eager, channels_last, fused, compile, winograd, cudnn, onnxruntime, openvino or tensorrt; auto is the
            fastest of them, measured the first time and then cached (see `inceptionnet.engines.cache`).
        batch_size: the usual batch size. Others work too, more slowly with compile and cudnn.
        precision: fp32; bf16 (two to three digits); fp16 (three to four digits, up to 65504), with the engines of torch
            and tensorrt; int8, with onnxruntime and openvino; or auto: of all of them (fp16 on GPUs only) the fastest
            that agrees with the network on the images of `calibrate`. Without images it is fp32, or bf16 or fp16 if
            their logits on noise are within 3 % or 0.4 % of the largest.
        calibrate: for int8 and auto, 100 or more representative images: a tensor of network inputs or, if `model` is a
            file, anything that `open_images` opens. A third of them, at most 128, are used for calibration, the others,
            at most 256, for comparison.
        agreement: the minimum share of the comparison images with an unchanged predicted class; without a classifier,
            the minimum explained variance of the features. Default: 0.95 for int8, 0.99 for auto.
        device: as for pick_device; winograd, onnxruntime and openvino run on the CPU, cudnn and tensorrt on CUDA.
        threads: number of CPU threads; default: as torch is set, with auto also half of them. With auto, a batch may be
            cut into streams that run beside one another, if that is faster.
        size_px: image size, px; default: as in the weights file or the network.
        remeasure: ignore the cached choice and measure again.

    Shapes: see `Engine`.

    Raises:
        ConfigurationError: an unknown engine or precision, or one that cannot run here or whose outputs differ.
        MissingExtraError: the engine needs a package that is not installed.
        WeightsError: the file has no weights, or they give logits that are not finite.
    """
    check_engine(engine)
    check_precision(precision, calibrate is not None)
    for argument, value in (("batch_size", batch_size), ("threads", threads), ("size_px", size_px)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigurationError(f"{argument} is {value!r}; expected a whole number, 1 or more")
    at = pick_device(device)
    file = None
    if not isinstance(model, InceptionNet):
        file = read_weights(model)
        model, size_px = file.model(), size_px or file.record.preprocessing.size_px
    if agreement is None:
        agreement = AUTO_AGREEMENT if precision == AUTO else MIN_AGREEMENT
    elif not 0 <= agreement <= 1:
        raise ConfigurationError(f"agreement is {agreement!r}; expected a share from 0 to 1, such as 0.99")
    images = None if calibrate is None else _to_calibrate(calibrate, file, size_px)
    with torch.inference_mode(False), torch.no_grad():
        plain = copy.deepcopy(model).to(at, torch.float32).eval().requires_grad_(False)
        example = noise(batch_size, plain.configuration.in_channels, size_px or plain.network.input_size).to(at)
    compared = calibration = None
    if images is not None:
        if images.shape[1:] != example.shape[1:]:
            raise ConfigurationError(
                f"calibrate: expected images of shape (N, {', '.join(map(str, example.shape[1:]))}), the engine's "
                f"input, got {tuple(images.shape)}; resize them, or set size_px"
            )
        calibration, compared = (torch.stack(part).to(at) for part in split_calibration(list(images)))
    target = Target(example, precision, threads or torch.get_num_threads(), calibration)
    candidates = Candidates(plain, target, example[:CHECKED], compared, agreement)
    if AUTO in (engine, precision):
        names = list(BUILDERS) if engine == AUTO else [engine]
        return fastest(candidates, names, remeasure=remeasure, fixed_threads=threads is not None)
    made = candidates.engine(engine, precision)
    made.about["why"] = "requested"
    return made


def check_engine(name: str) -> None:
    """Raises: ConfigurationError unless `name` is an engine or auto."""
    if name != AUTO and name not in BUILDERS:
        raise ConfigurationError(f"unknown engine {name!r}: {nearest(name, [AUTO, *BUILDERS])}")


def check_precision(name: str, calibrated: bool) -> None:
    """Raises: ConfigurationError for an unknown precision, int8 without calibration images, or images without int8."""
    if name == AUTO:
        return
    if name not in DTYPES:
        raise ConfigurationError(f"unknown precision {name!r}: {nearest(name, [AUTO, *DTYPES])}")
    if calibrated != (name == "int8"):
        raise ConfigurationError(
            f"calibrate: expected precision int8 or auto for calibration images, got {name}; omit them"
            if calibrated
            else "calibrate: expected images for precision int8, got none; give 100 or more"
        )


def _to_calibrate(
    calibrate: Tensor | str | Path | Sequence[str | Path], file: WeightsFile | None, size: int | None
) -> Tensor:
    """The images to calibrate and compare int8 on, as network input."""
    if isinstance(calibrate, Tensor):
        if calibrate.dim() != 4 or not len(calibrate) or not calibrate.is_floating_point():
            raise ConfigurationError(
                f"calibrate: expected float images (N, C, H, W), got {calibrate.dtype} {tuple(calibrate.shape)}"
            )
        return calibrate.detach().float()[evenly_spaced(len(calibrate), CALIBRATED + COMPARED)]
    if file is None:
        raise ConfigurationError(
            "calibrate: expected a tensor of images for a network, got paths; give a weights file or a tensor"
        )
    prep = file.record.preprocessing
    prep = replace(prep, size_px=size or prep.size_px)
    paths = [calibrate] if isinstance(calibrate, str | Path) else calibrate
    return to_calibrate([str(path) for path in paths], prep)
