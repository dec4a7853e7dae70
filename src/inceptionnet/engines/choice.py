"""`optimize`: a network by the engine that is asked for, or by the fastest one that gives its numbers.

Which engine is the fastest depends on the network, the number of images and the machine, so it is measured, once, and
remembered. Whichever it is, what it gives for some images is compared with the network's own logits every time: in
fp32 and bf16 how far the logits of a few are off, in int8 how often the first class stays.
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
from inceptionnet.devices import pick_device
from inceptionnet.engines.agreement import agreement, spoilt, spread, to_calibrate
from inceptionnet.engines.cache import Choice, device_name, recall, remember
from inceptionnet.engines.int8 import CALIBRATED, COMPARED, LEAST_AGREEMENT, dealt
from inceptionnet.engines.runtimes import BUILDERS, DTYPES, Engine, Target, build_engine, reason, version_of
from inceptionnet.engines.timing import measured, noise
from inceptionnet.errors import ConfigurationError, InceptionNetError, WeightsError, nearest
from inceptionnet.model import InceptionNet
from inceptionnet.weights import WeightsFile, read_weights

log = logging.getLogger("inceptionnet")

AUTO = "auto"
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""How far logits may be off, as a share of the largest, by precision; int8 has `LEAST_AGREEMENT` instead."""
CHECKED = 4
"""With so many images of noise, at most."""
AT_ONCE = 16
"""Images, where there are many to compare on."""


def optimize(
    model: InceptionNet | str | Path,
    engine: str = AUTO,
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    calibrate: Tensor | str | Path | Sequence[str | Path] | None = None,
    least_agreement: float = LEAST_AGREEMENT,
    device: str = "auto",
    threads: int | None = None,
    size_px: int | None = None,
    fresh: bool = False,
) -> Engine:
    """A network made as fast as this machine can run it: a callable that takes what the network takes.

    Its `about` says which engine it is and why, which others were skipped for what reason, and how far its logits are
    from the network's own. The network stays as it is; later changes to it do not reach the engine.

    Args:
        model: a network, or a weights file as for `load_model`.
        engine: eager, channels_last, fused, compile, onnxruntime or openvino; auto takes the fastest, which is measured
            the first time and then remembered (see `inceptionnet.engines.cache`).
        batch_size: how many images there will mostly be at once. Other numbers work, slower where it is compile.
        precision: fp32; bf16 with two to three digits; or int8, by onnxruntime and openvino.
        calibrate: for int8, images such as it will see, 100 or more: a tensor as the network takes it or, where
            `model` is a file, whatever `open_images` opens. A third of them, at most 128, are calibrated on; on the
            others, at most 256, it is compared.
        least_agreement: for int8, the least share of these for which the first class stays what it was; without
            a classifier, of the features' variance that is kept.
        device: as for pick_device; onnxruntime and openvino are for the CPU.
        threads: of the CPU; left out, as many as torch has.
        size_px: height and width of the images; left out, what the weights file or the network says.
        fresh: measure again.

    Shapes: see `Engine`.

    Raises:
        ConfigurationError: an unknown engine or precision, or one that cannot run here or gives other numbers.
        MissingExtraError: the engine needs a package that is not installed.
        WeightsError: the file holds no weights, or some that give no finite logits.
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
                f"calibrate: expected images of shape (N, {', '.join(map(str, example.shape[1:]))}), as the engine "
                f"will take them, got {tuple(images.shape)}; size_px says another size"
            )
        calibration, few = (torch.stack(part).to(at) for part in dealt(list(images)))
    target = Target(example, precision, threads or torch.get_num_threads(), calibration)
    trial = _Trial(plain, target, few, least_agreement)
    if engine == AUTO:
        return trial.best(fresh)
    made = trial.engine(engine)
    made.about["why"] = "asked for"
    return made


def check_engine(name: str) -> None:
    """Raises: ConfigurationError for what is not the name of an engine, nor auto."""
    if name != AUTO and name not in BUILDERS:
        raise ConfigurationError(f"unknown engine {name!r}: {nearest(name, [AUTO, *BUILDERS])}")


def check_precision(name: str, calibrated: bool) -> None:
    """Raises: ConfigurationError for what is no precision, for int8 without images and for images without int8."""
    if name not in DTYPES:
        raise ConfigurationError(f"unknown precision {name!r}: {nearest(name, DTYPES)}")
    if calibrated != (name == "int8"):
        raise ConfigurationError(
            f"images to calibrate on are for precision int8, got {name}; leave them out"
            if calibrated
            else "precision int8 needs images to calibrate on, such as the network will see; give them as calibrate"
        )


def _to_calibrate(
    calibrate: Tensor | str | Path | Sequence[str | Path], file: WeightsFile | None, size: int | None
) -> Tensor:
    """What int8 is calibrated and compared on, as the network takes it."""
    if isinstance(calibrate, Tensor):
        if calibrate.dim() != 4 or not len(calibrate) or not calibrate.is_floating_point():
            raise ConfigurationError(
                f"calibrate: expected float images (N, C, H, W), got {calibrate.dtype} {tuple(calibrate.shape)}"
            )
        return calibrate.detach().float()[spread(len(calibrate), CALIBRATED + COMPARED)]
    if file is None:
        raise ConfigurationError("calibrate: expected a tensor of images, since the network is given without its file")
    prep = file.record.preprocessing
    prep = replace(prep, size_px=size or prep.size_px)
    paths = [calibrate] if isinstance(calibrate, str | Path) else calibrate
    return to_calibrate([str(path) for path in paths], prep)


class _Trial:
    """Engines of one network for one target, each compared with the network, on a few images, before it is used."""

    def __init__(self, plain: InceptionNet, target: Target, few: Tensor, least_agreement: float) -> None:
        self.plain, self.target, self.few, self.least_agreement = plain, target, few, least_agreement
        eager = build_engine("eager", plain, replace(target, precision="fp32", calibration=None))
        self.expected = self._asked(eager)
        if not self.expected.isfinite().all():
            raise WeightsError(f"{plain.network.name}: gives logits that are not finite; check its weights")

    def engine(self, name: str) -> Engine:
        """The engine of that name, checked. Raises: as `optimize`."""
        made = build_engine(name, self.plain, self.target)
        try:
            got = self._asked(made)
        except InceptionNetError:
            raise
        except Exception as error:  # a runtime raises what it likes
            raise ConfigurationError(f"engine {name} fails here ({reason(error)}); choose another, or auto") from error
        if self.target.precision == "int8":
            made.about |= self._agreement(name, got)
        else:
            made.about["difference"] = _difference(name, got, self.expected, TOLERANCE[self.target.precision])
        return made

    def _asked(self, engine: Engine) -> Tensor:
        return torch.cat([engine(images) for images in torch.split(self.few, AT_ONCE)])

    def _agreement(self, name: str, got: Tensor) -> dict[str, Any]:
        """What `about` says of it. Raises: ConfigurationError: too little of the network is kept."""
        _same_shape(name, got, self.expected)
        found = agreement(self.expected, got, classes=self.plain.num_classes > 0, batch_sizes=())
        if not (got.isfinite().all() and found.share >= self.least_agreement):
            raise ConfigurationError(spoilt(f"engine {name}", found, self.least_agreement))
        return {"difference": found.logits, "agreement": found.share, "compared_on": found.images}

    def best(self, fresh: bool) -> Engine:
        """The fastest engine, as remembered, or else as measured now."""
        key = self._key()
        choice = None if fresh else recall(key)
        if choice is not None:
            try:
                return _chosen(self.engine(choice.engine), choice, remembered=True)
            except InceptionNetError as error:
                log.warning("%s was the fastest, but: %s; the engines are measured anew", choice.engine, error)
        engines, skipped = self._usable()
        times = measured(list(engines.values()), self.target.example)
        choice = Choice(min(times, key=times.__getitem__), times, skipped)
        remember(key, choice)
        return _chosen(engines[choice.engine], choice, remembered=False)

    def _usable(self) -> tuple[dict[str, Engine], dict[str, str]]:
        """All engines that run here and give the network's numbers; and the reasons of the others."""
        log.info("trying which engine is the fastest here; that is done once, and takes a minute or two")
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
            raise ConfigurationError(f"no engine runs {self.plain.network.name} in {precision} here: {told}")
        return engines, skipped

    def _key(self) -> dict[str, Any]:
        """All that speed depends on; weights are not among it."""
        return {
            "network": asdict(self.plain.configuration),
            "shape": list(self.target.example.shape),
            "precision": self.target.precision,
            "device": device_name(self.target.example.device),
            "threads": self.target.threads,
            "versions": {
                "inceptionnet": __version__,
                **{package: version_of(package) for package in ("torch", "onnx", "onnxruntime", "openvino", "nncf")},
            },
        }


def _chosen(engine: Engine, choice: Choice, *, remembered: bool) -> Engine:
    figures = {"latency_ms": dict(choice.latency_ms), "skipped": dict(choice.skipped), "remembered": remembered}
    engine.about |= {"why": choice.why, **figures}
    log.info("engine %s: %s%s", engine.name, choice.why, " (as measured before)" if remembered else "")
    return engine


def _difference(name: str, got: Tensor, expected: Tensor, tolerance: float) -> float:
    """How far logits are from the expected ones, as a share of the largest. Raises: ConfigurationError: too far."""
    _same_shape(name, got, expected)
    largest = float(expected.abs().max())
    off = float((got - expected).abs().max()) / (largest or 1.0)
    # Where the two best are as good as equal, either may come first.
    clear = expected.amax(1) - expected.topk(min(2, expected.shape[1]), 1).values[:, -1] > tolerance * largest
    same = torch.equal(got.argmax(1)[clear], expected.argmax(1)[clear])
    if not (off <= tolerance and same):  # so that NaN is too far as well
        raise ConfigurationError(
            f"engine {name} gives other numbers here: off by {off:.1e} of the largest logit, expected {tolerance:g} at "
            f"most{'' if same else ', and another class'}; choose another"
        )
    return off


def _same_shape(name: str, got: Tensor, expected: Tensor) -> None:
    if got.shape != expected.shape:
        raise ConfigurationError(
            f"engine {name} gives logits of shape {tuple(got.shape)}, expected {tuple(expected.shape)}; choose another"
        )
