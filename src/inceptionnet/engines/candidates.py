"""The engines for one network and input: each is compared with the network before it is used; and the fastest one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from statistics import median
from typing import Any

import torch
from torch import Tensor

from inceptionnet import __version__
from inceptionnet.engines.agreement import agreement, low_agreement
from inceptionnet.engines.cache import Choice, device_name, recall, remember
from inceptionnet.engines.runtimes import (
    DTYPES,
    LACKS,
    WITH_STREAMS,
    Engine,
    Target,
    build_engine,
    labelled,
    reason,
)
from inceptionnet.engines.timing import measured, take_turns
from inceptionnet.errors import ConfigurationError, InceptionNetError, WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.system.devices import cpu_says
from inceptionnet.system.extras import version_of

log: logging.Logger = logging.getLogger("inceptionnet")

AUTO = "auto"
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 4e-3}
"""Largest difference of the logits, relative to the largest, by precision, where no images are given."""
KEYED = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt")
"""Packages on whose versions speed depends."""
AT_ONCE = 16
"""Batch size when comparing on many images."""
TURNS, GAIN = 5, 0.97
"""Another number of threads or streams is taken if the median of so many turns is below this share."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert"}
"""What /proc/cpuinfo calls bfloat16 products."""


class Candidates:
    """The engines for one network and target.

    Args:
        plain: the network, in evaluation mode, on its device.
        target: its precision may be auto: all that are possible.
        noise: a few inputs, on which every engine must give finite logits, and one in fp32 the network's own.
        images: representative inputs, on which a lower precision must agree with the network; they are not those of
            `target.calibration`. None: the difference of the logits on the noise decides, and int8 is not possible.
        least: the share of the images whose predicted class must be unchanged.
        fixed_threads: the number of threads is asked for; else fewer may be chosen.
    """

    def __init__(
        self,
        plain: InceptionNet,
        target: Target,
        noise: Tensor,
        images: Tensor | None,
        least: float,
        fixed_threads: bool,
    ) -> None:
        self.plain = plain
        self.target = target
        self.noise = noise
        self.images = images
        self.least = least
        self.fixed_threads = fixed_threads
        self._eager = build_engine("eager", plain, replace(target, precision="fp32", calibration=None))
        self._expected = _outputs(self._eager, noise)
        if not self._expected.isfinite().all():
            raise WeightsError(f"{plain.network.name}: expected finite logits, got NaN or infinity; check its weights")

    def engine(self, name: str, precision: str) -> Engine:
        """Build an engine and compare it with the network. Raises: as `optimize`."""
        made = self._built(name, precision)
        self._judge(made)
        return made

    def fastest(self, names: Sequence[str], remeasure: bool) -> Engine:
        """The fastest of the engines that agree, by the latencies in the cache or measured now."""
        key = self._key(names)
        choice = None if remeasure else recall(key)
        if choice is not None:
            try:
                return self._tuned(key, choice, self._first_that_agrees(choice, (), cached=True))
            except InceptionNetError as error:
                log.warning("cached %s; measuring the engines again", error)
        engines, skipped = self._usable(names)
        times = measured(engines, self.target.example)
        choice = Choice(min(times, key=times.__getitem__), times, skipped)
        remember(key, choice)
        return self._tuned(key, choice, self._first_that_agrees(choice, engines, cached=False))

    def _tuned(self, key: Mapping[str, Any], choice: Choice, made: Engine) -> Engine:
        """The engine with the number of threads and streams that is fastest, from the cache or measured now."""
        threads = self.target.threads
        if (
            threads == 1
            or made.precision == "int8"
            or made.name == "compile"
            or self.target.example.device.type != "cpu"
        ):
            return made  # int8 and compile would take longer to build than they could gain
        if made.label in choice.runs:
            asked, streams = choice.runs[made.label]
            return made if (asked, streams) == (threads, 1) else self._variant(made, asked, streams)
        ways = [] if self.fixed_threads else [(threads // 2, 1)]
        if made.name in WITH_STREAMS:
            ways += [
                (threads, streams) for streams in {2, threads} if streams <= min(threads, len(self.target.example))
            ]
        best, run = made, (threads, 1)
        for way in sorted(ways):
            other = self._variant(made, *way)
            first, second = (median(taken) for taken in take_turns([best, other], self.target.example, TURNS))
            if second < GAIN * first:
                best, run = other, way
        remember(key, replace(choice, runs={**choice.runs, made.label: run}))
        return best

    def _variant(self, made: Engine, threads: int, streams: int) -> Engine:
        other = self._built(made.name, made.precision, threads, streams)
        other.about |= {name: value for name, value in made.about.items() if name not in other.about}
        return other

    def _built(self, name: str, precision: str, threads: int | None = None, streams: int = 1) -> Engine:
        """An engine that gives logits which can be right. Raises: as `optimize`."""
        target = replace(
            self.target,
            precision=precision,
            calibration=self.target.calibration if precision == "int8" else None,
            threads=threads or self.target.threads,
            streams=streams,
        )
        made = build_engine(name, self.plain, target)
        try:
            got = _outputs(made, self.noise)
        except InceptionNetError:
            raise
        except Exception as error:  # runtimes raise many types
            raise ConfigurationError(
                f"engine {made.label} fails here ({reason(error)}); choose another, or auto"
            ) from error
        if precision == "fp16" and not got.isfinite().all():
            raise ConfigurationError(
                f"engine {made.label}: expected finite logits, got infinity or NaN: this network has values beyond "
                "65504, the largest of fp16; choose bf16 or fp32"
            )
        if precision != "int8":
            tolerance = TOLERANCE[precision] if precision == "fp32" or self.images is None else float("inf")
            made.about["difference"] = _difference(made.label, got, self._expected, tolerance, self.plain.outputs)
        return made

    def _judge(self, made: Engine) -> None:
        """Compare a lower precision on the images. Raises: ConfigurationError: the agreement is too low."""
        if made.precision == "fp32" or self.images is None:
            return
        got = _outputs(made, self.images)
        _same_shape(made.name, got, self._expected_on_images)
        found = agreement(self._expected_on_images, got, outputs=self.plain.outputs, batch_sizes=())
        if not (got.isfinite().all() and found.share >= self.least):
            raise ConfigurationError(low_agreement(f"engine {made.name}", found, self.least, made.precision))
        made.about |= {"difference": found.logits, "agreement": found.share, "compared_on": found.images}

    @cached_property
    def _expected_on_images(self) -> Tensor:
        assert self.images is not None
        return _outputs(self._eager, self.images)

    def _first_that_agrees(self, choice: Choice, engines: Iterable[Engine], *, cached: bool) -> Engine:
        """The fastest engine of the choice that agrees with the network on the images."""
        ready = {engine.label: engine for engine in engines}
        skipped = dict(choice.skipped)
        for label in sorted(choice.latency_ms, key=choice.latency_ms.__getitem__):
            name, _, precision = label.partition(" ")
            made = ready.get(label) or self._built(name, precision or "fp32")
            try:
                self._judge(made)
            except ConfigurationError as error:
                skipped[label] = str(error)
                continue
            why = choice.why if label == choice.engine else f"{choice.why}; the faster ones do not agree"
            why += self._of_precision(made) if self.target.precision == AUTO else ""
            latencies = {"latency_ms": dict(choice.latency_ms), "skipped": skipped, "cached": cached}
            made.about |= {"why": why, **latencies}
            log.info("engine %s: %s%s", label, why, " (cached)" if cached else "")
            return made
        raise ConfigurationError(
            f"no engine can run {self.plain.network.name} in {self.target.precision} on this machine: "
            + "; ".join(skipped.values())
        )

    def _of_precision(self, made: Engine) -> str:
        """Why its precision will do."""
        if made.precision == "fp32":
            return ""
        if self.images is None:
            return f"; logits in {made.precision} differ by {made.about['difference']:.1%} of the largest, on noise"
        share, count = made.about["agreement"], made.about["compared_on"]
        what = "predicts the class of fp32 for" if self.plain.outputs.logits else "has features that explain"
        of = f"of {count} images" if self.plain.outputs.logits else f"of fp32's variance on {count} images"
        return f"; {made.precision} {what} {share:.1%} {of} (at least {self.least:.1%} is asked)"

    def _usable(self, names: Sequence[str]) -> tuple[list[Engine], dict[str, str]]:
        """The engines that run here and may agree with the network, and the reasons why the others do not."""
        log.info("measuring which engine is the fastest; this is done once and takes some minutes")
        engines: list[Engine] = []
        skipped: dict[str, str] = {}
        auto = self.target.precision == AUTO
        for precision in DTYPES if auto else [self.target.precision]:
            if auto and (why := self._impossible(precision)):
                skipped[precision] = why
                continue
            for name in names:
                if auto and name in LACKS.get(precision, ()):
                    continue
                try:
                    engines.append(self._built(name, precision))
                except InceptionNetError as error:
                    skipped[labelled(name, precision)] = str(error)
        if not engines:
            told = "; ".join(skipped.values())
            raise ConfigurationError(
                f"no engine can run {self.plain.network.name} in {self.target.precision} on this machine: {told}"
            )
        return engines, skipped

    def _impossible(self, precision: str) -> str:
        """Why auto does not try a precision, or nothing."""
        device = self.target.example.device.type
        if precision == "fp32":
            return ""
        if precision == "int8":
            return "" if self.target.calibration is not None else "no images are given to calibrate int8 on"
        if precision == "fp16":
            return "" if device != "cpu" else "processors have no instructions for fp16 that are worth it"
        if device == "cpu" and not BF16_FLAGS & {*cpu_says("flags").split(), *cpu_says("Features").split()}:
            return f"this processor has no instructions for {precision}"
        return ""

    def _key(self, names: Sequence[str]) -> dict[str, Any]:
        """Everything that speed depends on; weights are not part of it."""
        return {
            "network": asdict(self.plain.configuration),
            "shape": list(self.target.example.shape),
            "precision": self.target.precision,
            "calibrated": self.target.calibration is not None,
            "device": device_name(self.target.example.device),
            "threads": [self.target.threads, self.fixed_threads],
            "engines": list(names),
            "versions": {
                "inceptionnet": __version__,
                **{package: version_of(package) for package in KEYED},
            },
        }


def _outputs(engine: Engine, images: Tensor) -> Tensor:
    return torch.cat([engine(some) for some in torch.split(images, AT_ONCE)])


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
