"""Inference engines: each is a callable that gives the network's logits, built for a target by builders.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inceptionnet.errors import InputError
from inceptionnet.system.extras import version_of
from inceptionnet.system.settings import exact, threads

Run = Callable[[Tensor], Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
"""Data types of inputs and outputs, by precision."""


@dataclass(frozen=True)
class Target:
    """The input, precision, threads and streams that an engine is built for.

    With several streams a batch is cut into as many parts, which run at the same time with their share of the threads.

    Shapes: example (N, C, H, W) with the usual batch size N; calibration (M, C, H, W), for int8 only.
    """

    example: Tensor
    precision: str
    threads: int
    calibration: Tensor | None = None
    streams: int = 1


class Engine:
    """A network prepared for inference; a copy, so that later changes to the network do not affect it.

    Shapes: float (N, C, H, W) in [-1, 1], any N; C, H, W as built → float32 (N, classes), on the same device.
    """

    def __init__(self, name: str, run: Run, target: Target, package: str) -> None:
        example = target.example
        self.name = name
        self.precision: str = target.precision
        self.package = package
        self._run, self._shape, self._device, self._threads = run, example.shape[1:], example.device, target.threads
        self.about: dict[str, Any] = {
            "engine": name,
            "precision": target.precision,
            "library": f"{package} {version_of(package)}",
            "device": str(example.device),
            "threads": target.threads,
            "streams": target.streams,
            "batch_size": len(example),
            "shape": list(self._shape),
        }
        if target.calibration is not None:
            self.about["calibrated_on"] = len(target.calibration)

    @property
    def label(self) -> str:
        """Its name, with the precision unless that is fp32."""
        return labelled(self.name, self.precision)

    def __repr__(self) -> str:
        return f"Engine({self.name}, {self.precision}, {tuple(self._shape)} on {self._device})"

    def __call__(self, x: Tensor) -> Tensor:
        """Logits. Raises: InputError: a batch of another shape or type."""
        shape = self._shape
        if x.dim() != 4 or x.shape[1:] != shape or not x.is_floating_point():
            raise InputError(
                f"expected float images of shape (N, {', '.join(map(str, shape))}), got {x.dtype} {tuple(x.shape)}; "
                "optimize(…, size_px=…) builds an engine for another image size"
            )
        if not len(x):
            return self(x.new_zeros(1, *shape))[:0]
        with torch.inference_mode(), threads(self._threads), exact(self._device):
            y = self._run(x.to(self._device, torch.float32))
        return y.to(x.device, torch.float32, copy=True)  # a copy outside inference mode is an ordinary tensor


def labelled(name: str, precision: str) -> str:
    """The label of an engine in a precision."""
    return name if precision == "fp32" else f"{name} {precision}"


def reason(error: Exception) -> str:
    """The message of another library's error, in one line and without torch's debugging advice."""
    said = " ".join(str(error).split()).partition(" Set TORCHDYNAMO_VERBOSE")[0]
    return f"{type(error).__name__}: {said[:300]}"
