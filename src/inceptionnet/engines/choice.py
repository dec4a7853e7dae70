"""`optimize`: run a network with a given engine, or with the fastest one whose outputs agree with the network.

The fastest engine depends on network, batch size and machine, so it is measured once and cached. The outputs of every
engine are compared with the network's own logits each time it is built: the largest difference of the logits in fp32
and bf16, the top-1 agreement in int8.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet import __version__
from inceptionnet.data.splits import evenly_spaced
from inceptionnet.engines.agreement import agreement, low_agreement, to_calibrate
from inceptionnet.engines.cache import Choice, device_name, recall, remember
from inceptionnet.engines.int8 import CALIBRATED, COMPARED, MIN_AGREEMENT, split_calibration
from inceptionnet.engines.runtimes import BUILDERS, DTYPES, Engine, Target, build_engine, reason, version_of
from inceptionnet.engines.timing import measured, noise
from inceptionnet.errors import ConfigurationError, InceptionNetError, WeightsError, nearest
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.system.devices import pick_device
from inceptionnet.weights import WeightsFile, read_weights

log = logging.getLogger("inceptionnet")

AUTO = "auto"
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest difference of the logits, relative to the largest, by precision; int8 has `MIN_AGREEMENT` instead."""
CHECKED = 4
"""Maximum number of images of noise to compare on."""
AT_ONCE = 16
"""Batch size when comparing on many images."""


def optimize(
    model: InceptionNet | str | Path,
    engine: str = AUTO,
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    calibrate: Tensor | str | Path | Sequence[str | Path] | None = None,
    min_agreement: float = MIN_AGREEMENT,
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
        engine: eager, channels_last, fused, compile, winograd, onnxruntime or openvino; auto is the fastest of them,
            measured the first time and then cached (see `inceptionnet.engines.cache`).
        batch_size: the usual batch size. Others work too, more slowly with compile.
        precision: fp32; bf16 (two to three digits); or int8, with onnxruntime and openvino.
        calibrate: for int8, 100 or more representative images: a tensor of network inputs or, if `model` is a file,
            anything that `open_images` opens. A third of them, at most 128, are used for calibration, the others, at
            most 256, for comparison.
        min_agreement: for int8, the minimum share of the comparison images with an unchanged predicted class; without
            a classifier, the minimum explained variance of the features.
        device: as for pick_device; winograd, onnxruntime and openvino run on the CPU.
        threads: number of CPU threads; default: as torch is set.
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
    images = None if calibrate is None else _to_calibrate(calibrate, file, size_px)
    with torch.inference_mode(False), torch.no_grad():
        plain = copy.deepcopy(model).to(at, torch.float32).eval().requires_grad_(False)
        example = noise(batch_size, plain.configuration.in_channels, size_px or plain.network.input_size).to(at)
    few, calibration = example[:CHECKED], None
    if images is not None:
        if images.shape[1:] != example.shape[1:]:
            raise ConfigurationError(
                f"calibrate: expected images of shape (N, {', '.join(map(str, example.shape[1:]))}), the engine's "
                f"input, got {tuple(images.shape)}; resize them, or set size_px"
            )
        calibration, few = (torch.stack(part).to(at) for part in split_calibration(list(images)))
    target = Target(example, precision, threads or torch.get_num_threads(), calibration)
    candidates = _Candidates(plain, target, few, min_agreement)
    if engine == AUTO:
        return candidates.fastest(remeasure)
    made = candidates.engine(engine)
    made.about["why"] = "requested"
    return made


def check_engine(name: str) -> None:
    """Raises: ConfigurationError unless `name` is an engine or auto."""
    if name != AUTO and name not in BUILDERS:
        raise ConfigurationError(f"unknown engine {name!r}: {nearest(name, [AUTO, *BUILDERS])}")


def check_precision(name: str, calibrated: bool) -> None:
    """Raises: ConfigurationError for an unknown precision, int8 without calibration images, or images without int8."""
    if name not in DTYPES:
        raise ConfigurationError(f"unknown precision {name!r}: {nearest(name, DTYPES)}")
    if calibrated != (name == "int8"):
        raise ConfigurationError(
            f"calibrate: expected precision int8 for calibration images, got {name}; omit them"
            if calibrated
            else "precision int8: expected images to calibrate on, got none; give 100 or more with calibrate"
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


class _Candidates:
    """The engines for one network and target, each compared with the network on a few images before it is used."""

    def __init__(self, plain: InceptionNet, target: Target, few: Tensor, min_agreement: float) -> None:
        self.plain, self.target, self.few, self.min_agreement = plain, target, few, min_agreement
        eager = build_engine("eager", plain, replace(target, precision="fp32", calibration=None))
        self.expected = self._outputs(eager)
        if not self.expected.isfinite().all():
            raise WeightsError(f"{plain.network.name}: expected finite logits, got NaN or infinity; check its weights")

    def engine(self, name: str) -> Engine:
        """Build the engine of that name and check its outputs. Raises: as `optimize`."""
        made = build_engine(name, self.plain, self.target)
        try:
            got = self._outputs(made)
        except InceptionNetError:
            raise
        except Exception as error:  # runtimes raise many types
            raise ConfigurationError(f"engine {name} fails here ({reason(error)}); choose another, or auto") from error
        if self.target.precision == "int8":
            made.about |= self._agreement(name, got)
        else:
            made.about["difference"] = _difference(
                name, got, self.expected, TOLERANCE[self.target.precision], self.plain.outputs
            )
        return made

    def _outputs(self, engine: Engine) -> Tensor:
        return torch.cat([engine(images) for images in torch.split(self.few, AT_ONCE)])

    def _agreement(self, name: str, got: Tensor) -> dict[str, Any]:
        """The entries of `about` for int8. Raises: ConfigurationError: the agreement is too low."""
        _same_shape(name, got, self.expected)
        found = agreement(self.expected, got, outputs=self.plain.outputs, batch_sizes=())
        if not (got.isfinite().all() and found.share >= self.min_agreement):
            raise ConfigurationError(low_agreement(f"engine {name}", found, self.min_agreement))
        return {"difference": found.logits, "agreement": found.share, "compared_on": found.images}

    def fastest(self, remeasure: bool) -> Engine:
        """The fastest engine, from the cache or measured now."""
        key = self._key()
        choice = None if remeasure else recall(key)
        if choice is not None:
            try:
                return _chosen(self.engine(choice.engine), choice, cached=True)
            except InceptionNetError as error:
                log.warning("cached engine %s: %s; measuring the engines again", choice.engine, error)
        engines, skipped = self._usable()
        times = measured(list(engines.values()), self.target.example)
        choice = Choice(min(times, key=times.__getitem__), times, skipped)
        remember(key, choice)
        return _chosen(engines[choice.engine], choice, cached=False)

    def _usable(self) -> tuple[dict[str, Engine], dict[str, str]]:
        """The engines that run here and agree with the network, and the reasons why the others do not."""
        log.info("measuring which engine is the fastest; this is done once and takes a minute or two")
        engines: dict[str, Engine] = {}
        skipped: dict[str, str] = {}
        for name in BUILDERS:
            try:
                engines[name] = self.engine(name)
            except InceptionNetError as error:
                skipped[name] = str(error)
        if not engines:
            told = "; ".join(skipped.values())
            precision = self.target.precision
            raise ConfigurationError(
                f"no engine can run {self.plain.network.name} in {precision} on this machine: {told}"
            )
        return engines, skipped

    def _key(self) -> dict[str, Any]:
        """Everything that speed depends on; weights are not part of it."""
        return {
            "network": asdict(self.plain.configuration),
            "shape": list(self.target.example.shape),
            "precision": self.target.precision,
            "device": device_name(self.target.example.device),
            "threads": self.target.threads,
            "engines": list(BUILDERS),
            "versions": {
                "inceptionnet": __version__,
                **{package: version_of(package) for package in ("torch", "onnx", "onnxruntime", "openvino", "nncf")},
            },
        }


def _chosen(engine: Engine, choice: Choice, *, cached: bool) -> Engine:
    figures = {"latency_ms": dict(choice.latency_ms), "skipped": dict(choice.skipped), "cached": cached}
    engine.about |= {"why": choice.why, **figures}
    log.info("engine %s: %s%s", engine.name, choice.why, " (cached)" if cached else "")
    return engine


def _difference(name: str, got: Tensor, expected: Tensor, tolerance: float, outputs: Outputs) -> float:
    """Largest difference of the logits, relative to the largest. Raises: ConfigurationError: it is too large."""
    _same_shape(name, got, expected)
    largest = float(expected.abs().max())
    off = float((got - expected).abs().max()) / (largest or 1.0)
    if outputs.activation == "sigmoid":  # a label whose logit is nearly 0 may be predicted or not
        clear = expected.abs() > tolerance * largest
        same = torch.equal((got >= 0)[clear], (expected >= 0)[clear])
    else:  # if the two largest logits are nearly equal, either may come first
        clear = expected.amax(1) - expected.topk(min(2, expected.shape[1]), 1).values[:, -1] > tolerance * largest
        same = torch.equal(got.argmax(1)[clear], expected.argmax(1)[clear])
    if not (off <= tolerance and same):  # also raises for NaN
        raise ConfigurationError(
            f"engine {name}: expected logits within {tolerance:g} of the network's, relative to the largest, got a "
            f"difference of {off:.1e}{'' if same else ' and another predicted class'}; choose another engine"
        )
    return off


def _same_shape(name: str, got: Tensor, expected: Tensor) -> None:
    if got.shape != expected.shape:
        raise ConfigurationError(
            f"engine {name}: expected logits of shape {tuple(expected.shape)}, got {tuple(got.shape)}; choose another "
            "engine"
        )
