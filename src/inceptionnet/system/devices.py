"""Selection of the torch device, and of the number of worker processes."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from inceptionnet.errors import ConfigurationError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name, such as `cuda:1`; `auto` is the accelerator that torch finds, else the CPU.

    Raises:
        ConfigurationError: an unknown device, or one that is not available.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # raises if it is not available, or holds no data like `meta`
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"--device {name}: not available ({reason}); use auto or cpu") from None
    return device


def default_workers(asked: int | None) -> int:
    """As many worker processes as asked for; default: half of the cores, at most 4."""
    return min(4, max(1, (os.cpu_count() or 2) // 2)) if asked is None else asked


def cpu_says(key: str) -> str:
    """The first processor's entry in /proc/cpuinfo for a key such as `model name` or `flags`; empty if absent."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in entries if name.strip() == key), "")
