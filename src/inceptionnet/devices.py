"""Which device to compute on."""

from __future__ import annotations

from pathlib import Path

import torch

from inceptionnet.errors import ConfigurationError


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the accelerator that torch finds, else the CPU; any other name is torch's own, such as `cuda:1`.

    Raises:
        ConfigurationError: torch knows no such device, or it is not there.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # there and able to answer: `meta` is neither
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"--device {name}: not usable here ({reason}); use auto or cpu") from None
    return device


def cpu_says(key: str) -> str:
    """What Linux says of the first processor under that key, such as `model name` or `flags`; else nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in entries if name.strip() == key), "")
