"""What computes the convolutions of a training step: torch, or on a CPU the kernels of the engine winograd."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from inceptionnet.engines.winograd.training import Convolutions
from inceptionnet.errors import ConfigurationError
from inceptionnet.model.network import InceptionNet
from inceptionnet.train.setting_groups import Compute


def convolutions(compute: Compute, model: InceptionNet) -> tuple[AbstractContextManager[object], str]:
    """The block in which the network runs forward, and the log line about it; with `auto` torch is the fallback.

    Raises:
        ConfigurationError: the kernels are asked for, and cannot be used.
    """
    if compute.convolutions == "torch":
        return nullcontext(), ""
    demands = {
        f"the device cpu, got {model.device}": model.device.type == "cpu",
        f"compute.precision=fp32, got {compute.precision}": compute.precision == "fp32",
        "compute.channels_last=true, got false": compute.channels_last,
        "compute.compile=false, got true": not compute.compile,
    }
    if missing := [demand for demand, met in demands.items() if not met]:
        if compute.convolutions == "auto":
            return nullcontext(), ""
        raise ConfigurationError(
            f"compute.convolutions=winograd: expected {missing[0]}; change that, or leave convolutions at auto"
        )
    try:
        return Convolutions(model), "convolutions: kernels of the engine winograd (compute.convolutions)"
    except ConfigurationError as error:
        if compute.convolutions == "winograd":
            raise
        return nullcontext(), f"convolutions: torch, which is slower here ({error})"
