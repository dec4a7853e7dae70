"""The engines for one network and input: each is compared with the network before it is used."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from inceptionnet.engines.agreement import agreement, low_agreement
from inceptionnet.engines.builders import build_engine
from inceptionnet.engines.runtimes import Engine, Target, reason
from inceptionnet.errors import ConfigurationError, InceptionNetError, WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs

AUTO = "auto"
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 4e-3}
"""Largest difference of the logits, relative to the largest, by precision, where no images are given."""
AT_ONCE = 16
"""Batch size when comparing on many images."""


class Candidates:
    """The engines for one network and target.

    Args:
        plain: the network, in evaluation mode, on its device.
        target: its precision may be auto: all that are possible.
        noise: a few inputs, on which every engine must give finite logits, and one in fp32 the network's own.
        images: representative inputs, on which a lower precision must agree with the network; they are not those of
            `target.calibration`. None: the difference of the logits on the noise decides, and int8 is not possible.
        least: the share of the images whose predicted class must be unchanged.
    """

    def __init__(self, plain: InceptionNet, target: Target, noise: Tensor, images: Tensor | None, least: float) -> None:
        self.plain = plain
        self.target = target
        self.noise = noise
        self.images = images
        self.least = least
        self._eager = build_engine("eager", plain, replace(target, precision="fp32", calibration=None))
        self._expected = _outputs(self._eager, noise)
        if not self._expected.isfinite().all():
            raise WeightsError(f"{plain.network.name}: expected finite logits, got NaN or infinity; check its weights")

    def engine(self, name: str, precision: str) -> Engine:
        """Build an engine and compare it with the network. Raises: as `optimize`."""
        made = self.built(name, precision)
        self.judge(made)
        return made

    def built(self, name: str, precision: str, threads: int | None = None, streams: int = 1) -> Engine:
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

    def judge(self, made: Engine) -> None:
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
